//! The users whom the configuration names, looked up on this machine.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::Path;

use fanin_config::{Code, Config, KeyPath, LoadError, Loaded, Problem, Severity, User};

/// Where users are looked up.
const PASSWD: &str = "/etc/passwd";

/// Largest such file that is read, in bytes; what is behind is not found.
const PASSWD_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Puts the number in the place of every user's name.
///
/// # Errors
/// Every name that this machine does not know, with its place.
pub fn resolve(mut loaded: Loaded) -> Result<Loaded, LoadError> {
    let problems = unknown(&loaded);
    if !problems.is_empty() {
        return Err(LoadError { problems });
    }
    let known = known(Path::new(PASSWD)).unwrap_or_default();
    for (_, user) in named(&mut loaded.config) {
        if let User::Name(name) = user
            && let Some(uid) = known.get(name)
        {
            *user = User::Uid(*uid);
        }
    }
    Ok(loaded)
}

/// What [`resolve`] would refuse.
#[must_use]
pub fn unknown(loaded: &Loaded) -> Vec<Problem> {
    unknown_in(loaded, Path::new(PASSWD))
}

fn unknown_in(loaded: &Loaded, passwd: &Path) -> Vec<Problem> {
    let mut config = loaded.config.clone();
    let names = named(&mut config)
        .into_iter()
        .filter_map(|(key, user)| match user {
            User::Name(name) => Some((key, name.clone())),
            User::Uid(_) => None,
        });
    let names: Vec<(KeyPath, String)> = names.collect();
    if names.is_empty() {
        return Vec::new();
    }
    let (known, why) = match known(passwd) {
        Ok(known) => (known, format!("{} does not name this user", passwd.display())),
        Err(error) => (
            BTreeMap::new(),
            format!("{} cannot be read: {error}", passwd.display()),
        ),
    };
    let code = Code::UnknownUser;
    let problem = |(key, name): (KeyPath, String)| {
        Problem {
        severity: Severity::Error,
        code,
        origin: loaded.origin(&key),
        key,
        value: Some(name),
        why: why.clone(),
        cure: "correct the name or create the user; give users of a directory service by their number (`id -u NAME`)"
            .to_owned(),
    }
    };
    let missing = names.into_iter().filter(|(_, name)| !known.contains_key(name));
    missing.map(problem).collect()
}

/// Every user of the configuration with its key.
fn named(config: &mut Config) -> Vec<(KeyPath, &mut User)> {
    let mut users = Vec::new();
    for (mapping, section) in &mut config.mappings {
        for (app, section) in &mut section.applications {
            let key = KeyPath::of(&["mappings", mapping, "applications", app, "users"]);
            let here = section.users.iter_mut().flatten().enumerate();
            users.extend(here.map(|(index, user)| (key.index(index), user)));
        }
    }
    users
}

/// Names and numbers of a file in the form of /etc/passwd; of a name given twice the first counts, as for the system.
fn known(passwd: &Path) -> io::Result<BTreeMap<String, u32>> {
    let mut bytes = Vec::new();
    std::fs::File::open(passwd)?
        .take(PASSWD_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    let mut known = BTreeMap::new();
    for line in String::from_utf8_lossy(&bytes).lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(_), Some(uid)) = (fields.next(), fields.next(), fields.next())
            && let Ok(uid) = uid.parse()
        {
            known.entry(name.to_owned()).or_insert(uid);
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    //! Goal: names become numbers; one that is not known is a problem with its place, and so is a file that cannot be read.
    //! Method: a configuration and a passwd file in a directory of the test's own; the real one for root.
    use fanin_config::{LoadRequest, load};

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# a comment\nbilling:x:1001:1001::/:/bin/false\n\
                          broken:x\nbilling:x:7:7::/:/bin/false\n";

    fn loaded(dir: &Path, users: &str) -> Loaded {
        let file = dir.join("fanin.yaml");
        let text = format!(
            "node: n1\nhub: {{ servers: [nats://h:1] }}\nmappings:\n  orders:\n    sources: [{{ stream: ORDERS }}]\n    \
             applications:\n      billing:\n        users: {users}\n      shipping: {{}}\n"
        );
        std::fs::write(&file, text).unwrap();
        let request = LoadRequest {
            file,
            ..LoadRequest::default()
        };
        load(&request).unwrap()
    }

    #[test]
    fn a_passwd_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("passwd");
        std::fs::write(&file, PASSWD).unwrap();
        let known = known(&file).unwrap();
        let expected = [("billing".to_owned(), 1001), ("root".to_owned(), 0)];
        assert_eq!(known, BTreeMap::from(expected));
    }

    #[test]
    fn unknown_names_are_problems_with_their_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("passwd");
        std::fs::write(&file, PASSWD).unwrap();
        let found = unknown_in(&loaded(dir.path(), "[billing, 4711, nobody-here, broken]"), &file);
        let told: Vec<String> = found
            .iter()
            .map(|problem| format!("{} {}", problem.key, problem.value.as_deref().unwrap_or("")))
            .collect();
        let key = "mappings.orders.applications.billing.users";
        assert_eq!(
            told,
            [format!("{key}[2] nobody-here"), format!("{key}[3] broken")]
        );
        let text = found[0].to_string();
        assert!(
            text.contains("FAN-1012") && text.contains("fanin.yaml:8"),
            "{text}"
        );
        let unreadable = unknown_in(&loaded(dir.path(), "[billing]"), &dir.path().join("none"));
        assert!(unreadable[0].why.contains("cannot be read"), "{}", unreadable[0]);
        assert_eq!(
            unknown_in(&loaded(dir.path(), "[4711]"), &dir.path().join("none")),
            []
        );
    }

    #[test]
    fn root_has_a_number() {
        let dir = tempfile::tempdir().unwrap();
        let resolved = resolve(loaded(dir.path(), "[root, 4711]")).unwrap();
        let users = &resolved.config.mappings["orders"].applications["billing"].users;
        assert_eq!(*users, Some(vec![User::Uid(0), User::Uid(4711)]));
        assert!(resolve(loaded(dir.path(), "[fanin-nobody-of-this-name]")).is_err());
    }
}
