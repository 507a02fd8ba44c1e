//! How to reach the hub, by the flags, variables and contexts of the `nats` client.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use fanin_hub::{HubOptions, Login, Secret, TlsOptions};
use serde::Deserialize;

use super::exit::Exit;
use super::failure::Failure;
use super::limits::CONTEXT_BYTES_MAX;
use super::load::environment;
use crate::telemetry::codes;

/// Where the `nats` client goes unless told otherwise.
const SERVER_DEFAULT: &str = "nats://127.0.0.1:4222";

/// How to reach the hub.
#[derive(Clone, Debug, Default, ClapArgs)]
#[command(next_help_heading = "Hub")]
pub(crate) struct HubArgs {
    /// Servers of the hub, separated by commas [default: nats://127.0.0.1:4222].
    #[arg(
        short = 's',
        long,
        value_name = "URL",
        env = "NATS_URL",
        hide_env_values = true
    )]
    server: Option<String>,
    /// User name, or a token when no password is given.
    #[arg(long, env = "NATS_USER", hide_env_values = true)]
    user: Option<String>,
    /// Password; better by the variable, where other users cannot read it.
    #[arg(long, env = "NATS_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// File with a user's credentials.
    #[arg(long, value_name = "FILE", env = "NATS_CREDS")]
    creds: Option<PathBuf>,
    /// File with an nkey's seed.
    #[arg(long, value_name = "FILE", env = "NATS_NKEY")]
    nkey: Option<PathBuf>,
    /// File with the client's certificate.
    #[arg(long, value_name = "FILE", env = "NATS_CERT")]
    tlscert: Option<PathBuf>,
    /// File with the key of the client's certificate.
    #[arg(long, value_name = "FILE", env = "NATS_KEY")]
    tlskey: Option<PathBuf>,
    /// File with the authority to trust.
    #[arg(long, value_name = "FILE", env = "NATS_CA")]
    tlsca: Option<PathBuf>,
    /// Encrypt before the server's greeting.
    #[arg(long)]
    tlsfirst: bool,
    /// A context of the nats client; the flags above win over it [default: the selected one].
    #[arg(long, value_name = "NAME", env = "NATS_CONTEXT")]
    context: Option<String>,
}

/// What a context file of the nats client says, as far as it is used here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Context {
    url: String,
    user: String,
    password: String,
    token: String,
    creds: String,
    nkey: String,
    cert: String,
    key: String,
    ca: String,
    jetstream_domain: String,
    inbox_prefix: String,
    tls_first: bool,
}

impl HubArgs {
    /// Options for a connection under this name. Reads the context's file if there is one.
    ///
    /// # Errors
    /// The context cannot be used.
    pub(crate) fn options(&self, client_name: &str) -> Result<HubOptions, Failure> {
        let context = self.read_context(&environment())?;
        Ok(self.merge(context.unwrap_or_default(), client_name))
    }

    fn merge(&self, context: Context, client_name: &str) -> HubOptions {
        let servers = self
            .server
            .clone()
            .or_else(|| given(&context.url))
            .unwrap_or_else(|| SERVER_DEFAULT.to_owned());
        let servers = servers
            .split(',')
            .map(str::trim)
            .filter(|server| !server.is_empty());
        let login = self.login().or_else(|| context.login()).unwrap_or_default();
        let file =
            |flag: &Option<PathBuf>, text: &str| flag.clone().or_else(|| given(text).map(PathBuf::from));
        HubOptions {
            client_name: client_name.to_owned(),
            login,
            tls: TlsOptions {
                required: false,
                first: self.tlsfirst || context.tls_first,
                ca: file(&self.tlsca, &context.ca),
                cert: file(&self.tlscert, &context.cert),
                key: file(&self.tlskey, &context.key),
            },
            domain: given(&context.jetstream_domain),
            inbox_prefix: given(&context.inbox_prefix),
            ..HubOptions::new(servers)
        }
    }

    /// The login that flags and variables ask for.
    fn login(&self) -> Option<Login> {
        if let Some(creds) = &self.creds {
            return Some(Login::Creds(creds.clone()));
        }
        if let Some(nkey) = &self.nkey {
            return Some(Login::Nkey(Secret::File(nkey.clone())));
        }
        user_login(self.user.clone()?, self.password.clone())
    }

    /// The context named, or the one the nats client has selected.
    fn read_context(&self, env: &BTreeMap<String, String>) -> Result<Option<Context>, Failure> {
        let Some(home) = nats_home(env) else {
            return Ok(None);
        };
        let name = match &self.context {
            Some(name) => name.clone(),
            // A server named by flag or variable is meant by itself; nobody asked for the selected context.
            None if self.server.is_some() => return Ok(None),
            None => match read(&home.join("context.txt")) {
                Ok(selected) if !selected.trim().is_empty() => selected.trim().to_owned(),
                Ok(_) | Err(_) => return Ok(None),
            },
        };
        let unusable = || {
            let text = format!("the context {name:?} of the nats client cannot be used");
            Failure::new(Exit::Config, codes::CONTEXT_UNREADABLE, text)
        };
        if name.contains(['/', '\\']) || name.starts_with('.') {
            return Err(unusable());
        }
        let text = read(&home.join("context").join(format!("{name}.json")))
            .map_err(|error| unusable().because(error))?;
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| unusable().because(error))
    }
}

impl Context {
    fn login(&self) -> Option<Login> {
        if let Some(creds) = given(&self.creds) {
            return Some(Login::Creds(creds.into()));
        }
        if let Some(nkey) = given(&self.nkey) {
            return Some(Login::Nkey(Secret::File(nkey.into())));
        }
        if let Some(token) = given(&self.token) {
            return Some(Login::Token(Secret::Value(token)));
        }
        user_login(given(&self.user)?, given(&self.password))
    }
}

/// As the nats client: a user without a password is a token.
fn user_login(user: String, password: Option<String>) -> Option<Login> {
    Some(match password {
        Some(password) => Login::UserPassword {
            user,
            password: Secret::Value(password),
        },
        None => Login::Token(Secret::Value(user)),
    })
}

fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Where the nats client keeps its contexts.
fn nats_home(env: &BTreeMap<String, String>) -> Option<PathBuf> {
    let variable = |name: &str| env.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")))?;
    Some(config.join("nats"))
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(CONTEXT_BYTES_MAX)
        .read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    //! Goal: flags win over contexts, contexts over defaults, and secrets do not show. Method: contexts in a
    //! temporary home.
    use super::*;

    fn home() -> (tempfile::TempDir, BTreeMap<String, String>) {
        let dir = tempfile::tempdir().unwrap();
        let contexts = dir.path().join("nats/context");
        std::fs::create_dir_all(&contexts).unwrap();
        let text = r#"{"url": "nats://ctx:1", "token": "hunter2", "ca": "/ca.pem", "inbox_prefix": "_I.x"}"#;
        std::fs::write(contexts.join("prod.json"), text).unwrap();
        let env = [("XDG_CONFIG_HOME".to_owned(), dir.path().display().to_string())].into();
        (dir, env)
    }

    fn options(args: &HubArgs, env: &BTreeMap<String, String>) -> HubOptions {
        args.merge(args.read_context(env).unwrap().unwrap_or_default(), "test")
    }

    #[test]
    fn defaults_contexts_flags() {
        let (dir, env) = home();
        let mut args = HubArgs::default();
        assert_eq!(options(&args, &env).servers, [SERVER_DEFAULT]);

        std::fs::write(dir.path().join("nats/context.txt"), "prod\n").unwrap();
        let selected = options(&args, &env);
        assert_eq!(selected.servers, ["nats://ctx:1"]);
        assert!(matches!(selected.login, Login::Token(_)));
        assert_eq!(selected.inbox_prefix.as_deref(), Some("_I.x"));
        assert!(!format!("{selected:?}").contains("hunter2"));

        args.server = Some("nats://a:1, nats://b:2".to_owned());
        let named = options(&args, &env);
        assert_eq!(named.servers, ["nats://a:1", "nats://b:2"]);
        assert!(matches!(named.login, Login::Anonymous));

        args.context = Some("prod".to_owned());
        args.user = Some("u".to_owned());
        args.password = Some("p".to_owned());
        let both = options(&args, &env);
        assert_eq!(both.servers, ["nats://a:1", "nats://b:2"]);
        assert!(matches!(both.login, Login::UserPassword { .. }));
        assert_eq!(both.tls.ca.as_deref(), Some(Path::new("/ca.pem")));
    }

    #[test]
    fn an_unknown_context_is_named() {
        let (_dir, env) = home();
        for name in ["nope", "../prod"] {
            let args = HubArgs {
                context: Some(name.to_owned()),
                ..HubArgs::default()
            };
            let failure = args.read_context(&env).unwrap_err();
            assert_eq!(failure.exit(), Exit::Config);
            assert!(failure.to_string().contains(name), "{failure}");
        }
    }
}
