//! The tour of the README, and starting things side by side.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use fanin_localhub::{LocalHub, LocalHubOptions, ServerBinary, free_port};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::support::{PATIENCE, Run, Running, command, dir};

/// Everything the script has started, in one process group; a test that fails leaves none of it behind.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // All of them may have ended.
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}

/// The text between the first line `open` behind the heading and the end of that block.
fn block<'t>(readme: &'t str, heading: &str, open: &str) -> &'t str {
    let (_, section) = readme.split_once(heading).expect(heading);
    let (_, text) = section.split_once(&format!("{open}\n")).expect(open);
    text.split_once("```").expect("an end").0
}

/// Replaces what a test must not take; a README in which it is not found any more fails the test.
fn replaced(text: &str, what: &str, by: &str) -> String {
    assert!(text.contains(what), "{what:?} is not in\n{text}");
    text.replace(what, by)
}

/// Goal: the README's tour works when it is pasted as a whole: each step waits for what the one before has only just
/// started. Method: commands and configuration are taken out of README.md and run by bash in their order, each of which
/// must succeed; only the build, the folder and the ports are others. `curl` is played by bash.
#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_tour_works_as_it_stands() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let commands = block(&readme, "\n## Five minutes\n", "```sh");
    let yaml = block(&readme, "\n## Five minutes\n", "```yaml");
    let sample = fs::read_to_string(root.join("config/samples/tour.yaml")).unwrap();
    assert!(
        sample.ends_with(yaml),
        "README.md shows another file than config/samples/tour.yaml:\n{yaml}"
    );

    let binary = tokio::task::spawn_blocking(|| ServerBinary::find_or_fetch(None))
        .await
        .unwrap()
        .unwrap();
    let dir = dir();
    let here = dir.path().to_str().unwrap();
    let (hub, admin) = (free_port().unwrap(), free_port().unwrap());

    let yaml = replaced(yaml, "/tmp/fanin-tour", here);
    let yaml = replaced(&yaml, "127.0.0.1:4222", &format!("127.0.0.1:{hub}"));
    let yaml = replaced(&yaml, "127.0.0.1:8222", &format!("127.0.0.1:{admin}"));
    let file = dir.path().join("tour.yaml");
    fs::write(&file, yaml).unwrap();

    let text = replaced(commands, "cargo build --release\n", "");
    let (before, fetch) = text.split_once("$(cargo run").expect("a nats-server");
    let (_, after) = fetch.split_once("fanin-nats-server)").expect("a nats-server");
    let text = format!("{before}{}{after}", binary.path().display());
    let text = replaced(&text, " -js ", &format!(" -js -a 127.0.0.1 -p {hub} "));
    let text = replaced(
        &text,
        "target/release/fanin ",
        concat!(env!("CARGO_BIN_EXE_fanin"), " "),
    );
    let text = replaced(&text, "config/samples/tour.yaml", file.to_str().unwrap());
    let text = replaced(&text, "/tmp/fanin-tour", here);
    let text = replaced(&text, "127.0.0.1:8222", &format!("127.0.0.1:{admin}"));
    // A reader has seen both outputs before he ends the tour.
    let arrived = format!(
        "until [ \"$(wc -l < {here}/shipping.txt)\" -eq 5 ]; do read -rt 0.05 <> <(:) || :; done\nkill %"
    );
    let text = replaced(&text, "kill %", &arrived);
    let script = format!(
        "set -e\n\
         curl() {{ local at=${{2%%/*}}; exec 3<>\"/dev/tcp/${{at%:*}}/${{at#*:}}\"\n\
         printf 'GET /%s HTTP/1.0\\r\\n\\r\\n' \"${{2#*/}}\" >&3; cat <&3; }}\n\
         {text}wait || :\n"
    );

    let mut bash = Command::new("bash");
    bash.arg("-c")
        .arg(&script)
        .current_dir(dir.path())
        .env_remove("FANIN_SOCKET")
        .env("HOME", dir.path())
        .env("NATS_URL", format!("nats://127.0.0.1:{hub}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let bash = tokio::process::Command::from(bash).spawn().unwrap();
    let pid = i32::try_from(bash.id().expect("runs")).unwrap();
    let _group = Group(Pid::from_raw(pid).unwrap());
    let output = timeout(PATIENCE, bash.wait_with_output()).await;
    let Ok(output) = output else {
        panic!("the tour does not come to its end:\n{script}")
    };
    let run: Run = output.unwrap().into();
    let told = || format!("{script}\n--- output\n{}\n--- errors\n{}", run.out, run.err);
    assert_eq!(run.code, 0, "{}", told());

    let billing: Vec<serde_json::Value> = run
        .out
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &serde_json::Value| line["app"] == "billing")
        .collect();
    let ids: Vec<&str> = billing.iter().filter_map(|line| line["id"].as_str()).collect();
    assert_eq!(
        ids,
        ["ORDERS:1", "ORDERS:2", "ORDERS:3", "ORDERS:4", "ORDERS:5"],
        "{}",
        told()
    );
    let shipping = fs::read_to_string(dir.path().join("shipping.txt")).unwrap();
    assert_eq!(shipping.lines().count(), 5, "{shipping}{}", told());
    for part in [
        "created  stream ORDERS",
        "stored 5 messages",
        "mapping orders  topic orders",
        "[+]store ok",
    ] {
        assert!(run.out.contains(part), "{part:?} is not in {}", told());
    }
}

/// Goal: commands that need the hub wait for one that is just starting. Method: the hub is started only after the command has
/// met a port on which nobody speaks; its store outlives it from one command to the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_is_starting_is_waited_for() {
    let binary = tokio::task::spawn_blocking(|| ServerBinary::find_or_fetch(None))
        .await
        .unwrap()
        .unwrap();
    let dir = dir();
    let port = free_port().unwrap();
    let url = format!("nats://127.0.0.1:{port}");
    let config = format!(
        "node: n1\nhub: {{ servers: [{url}] }}\nmappings:\n  orders:\n    \
         sources: [{{ stream: ORDERS, subjects: [\"orders.>\"] }}]\n    applications: {{ billing: {{}} }}\n"
    );
    fs::write(dir.path().join("fanin.yaml"), config).unwrap();
    fs::write(dir.path().join("lines"), "one\n").unwrap();
    for args in [
        &["hub", "plan", "--config", "fanin.yaml"][..],
        &["hub", "apply", "--config", "fanin.yaml"],
        &["publish", "orders.created", "--server", &url, "--file", "lines"],
    ] {
        let nobody = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let args = [args, &["--wait", "1m"]].concat();
        let waiting = Running::start(command(dir.path(), &args));
        let met = timeout(PATIENCE, nobody.accept())
            .await
            .expect("is tried")
            .unwrap();
        drop((met, nobody));
        let mut options = LocalHubOptions::new(binary.clone());
        options.port = Some(port);
        options.dir = Some(dir.path().join("hub"));
        let mut hub = LocalHub::start(options).await.unwrap();
        assert_eq!(waiting.end().await, 0, "{args:?}");
        hub.stop().await.unwrap();
    }
}
