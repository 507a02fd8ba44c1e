//! How to reach the hub: servers, login, TLS. Mirrors the flags and variables of the `nats` client.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};

use crate::connection::ConnectError;
use crate::limits;

/// How to reach the hub.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// Servers such as `nats://host:4222` or `tls://host`; tried in random order. At least one.
    pub servers: Vec<String>,
    /// The name shown for this connection in the hub's monitoring.
    pub client_name: String,
    /// How to log in. A user and password within a server's address are used when this is [`Login::Anonymous`].
    pub login: Login,
    /// Encryption.
    pub tls: TlsOptions,
    /// The JetStream domain, when the streams live behind a leaf node.
    pub domain: Option<String>,
    /// The prefix of reply subjects, `_INBOX` by default; accounts with tight permissions give each user its own.
    pub inbox_prefix: Option<String>,
    /// True: `connect` returns at once and the connection comes up when a server does. False: it fails when none answers.
    pub wait_for_hub: bool,
}

impl HubOptions {
    /// Anonymous, unencrypted access to the given servers; fails when none answers.
    #[must_use]
    pub fn new<S: Into<String>>(servers: impl IntoIterator<Item = S>) -> HubOptions {
        HubOptions {
            servers: servers.into_iter().map(Into::into).collect(),
            client_name: "fanin".to_owned(),
            login: Login::Anonymous,
            tls: TlsOptions::default(),
            domain: None,
            inbox_prefix: None,
            wait_for_hub: false,
        }
    }
}

/// How to log in.
#[derive(Clone, Debug, Default)]
pub enum Login {
    /// No credentials.
    #[default]
    Anonymous,
    /// A `.creds` file with JWT and key.
    Creds(PathBuf),
    /// An nkey seed.
    Nkey(Secret),
    /// A user and a password.
    UserPassword {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token.
    Token(Secret),
}

/// A secret in a file, or given directly (from the environment). Never shown.
#[derive(Clone)]
pub enum Secret {
    /// Read from this file when connecting; a trailing line break is dropped.
    File(PathBuf),
    /// The secret itself.
    Value(String),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::File(path) => write!(f, "file {}", path.display()),
            Secret::Value(_) => f.write_str("(redacted)"),
        }
    }
}

impl Secret {
    async fn read(&self) -> Result<String, ConnectError> {
        match self {
            Secret::Value(value) => Ok(value.clone()),
            Secret::File(path) => {
                let text = tokio::fs::read_to_string(path)
                    .await
                    .map_err(|source| unreadable(path, source))?;
                Ok(text.trim_end_matches(['\r', '\n']).to_owned())
            }
        }
    }
}

/// Encryption towards the hub. Certificates are PEM files.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// Refuse servers that do not encrypt. A `tls://` address asks for the same.
    pub required: bool,
    /// Start encrypted before the server's greeting, for servers with `handshake_first`.
    pub first: bool,
    /// The authority to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// The client's certificate; needs `key`.
    pub cert: Option<PathBuf>,
    /// The client's key; needs `cert`.
    pub key: Option<PathBuf>,
}

/// The client library's options and servers. Files are read here, so that a missing one is named.
pub(crate) async fn prepare(options: &HubOptions) -> Result<(ConnectOptions, Vec<ServerAddr>), ConnectError> {
    if options.servers.is_empty() {
        return Err(ConnectError::NoServers);
    }
    let mut servers = Vec::with_capacity(options.servers.len());
    for text in &options.servers {
        let address = text.trim();
        servers.push(
            address
                .parse::<ServerAddr>()
                .map_err(|source| ConnectError::BadAddress { source })?,
        );
    }

    let mut nats = ConnectOptions::new()
        .name(&options.client_name)
        .connection_timeout(limits::CONNECT_TIMEOUT)
        .request_timeout(Some(limits::API_TIMEOUT))
        .ping_interval(limits::PING_INTERVAL)
        .subscription_capacity(limits::SUBSCRIPTION_CAPACITY)
        .client_capacity(limits::COMMAND_CAPACITY)
        .reconnect_delay_callback(|attempts| reconnect_pause(attempts, rand::random::<f64>()))
        .max_reconnects(None);
    if options.wait_for_hub {
        nats = nats.retry_on_initial_connect();
    }
    if let Some(prefix) = &options.inbox_prefix {
        nats = nats.custom_inbox_prefix(prefix);
    }

    nats = match &options.login {
        // The client library ignores what an address says about the user, so it is passed on here.
        Login::Anonymous => match servers
            .iter()
            .find_map(|s| s.username().map(|user| (user, s.password())))
        {
            Some((token, None)) => nats.token(token.to_owned()),
            Some((user, Some(password))) => nats.user_and_password(user.to_owned(), password.to_owned()),
            None => nats,
        },
        Login::Creds(path) => nats
            .credentials_file(path)
            .await
            .map_err(|source| unreadable(path, source))?,
        Login::Nkey(seed) => nats.nkey(seed.read().await?),
        Login::UserPassword { user, password } => {
            nats.user_and_password(user.clone(), password.read().await?)
        }
        Login::Token(token) => nats.token(token.read().await?),
    };

    let tls = &options.tls;
    for path in [&tls.ca, &tls.cert, &tls.key].into_iter().flatten() {
        tokio::fs::metadata(path)
            .await
            .map_err(|source| unreadable(path, source))?;
    }
    if let Some(ca) = &tls.ca {
        nats = nats.add_root_certificates(ca.clone());
    }
    match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => nats = nats.add_client_certificate(cert.clone(), key.clone()),
        (None, None) => {}
        (Some(_), None) | (None, Some(_)) => return Err(ConnectError::HalfCertificate),
    }
    if tls.first {
        nats = nats.tls_first();
    }
    Ok((nats.require_tls(tls.required), servers))
}

fn unreadable(path: &Path, source: std::io::Error) -> ConnectError {
    ConnectError::Unreadable {
        path: path.to_owned(),
        source,
    }
}

/// The pause before an attempt: doubling from the first to the longest, half of it random, so that nodes that lost the
/// hub together do not come back together. `random` lies in 0..1.
fn reconnect_pause(attempts: usize, random: f64) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1))
        .unwrap_or(u32::MAX)
        .min(16);
    let full = limits::RECONNECT_PAUSE_FIRST
        .saturating_mul(1 << doublings)
        .min(limits::RECONNECT_PAUSE_MAX);
    if attempts <= 1 {
        full.mul_f64(random * 0.5)
    } else {
        full.mul_f64(0.5 + random * 0.5)
    }
}

#[cfg(test)]
mod tests {
    //! Goal: pauses grow, stay bounded and differ; secrets stay hidden. Method: direct calls.
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        assert_eq!(reconnect_pause(1, 0.0), Duration::ZERO);
        assert!(reconnect_pause(4, 0.0) > reconnect_pause(2, 0.99));
        assert!(reconnect_pause(1_000_000, 0.999) <= limits::RECONNECT_PAUSE_MAX);
        assert!(reconnect_pause(50, 0.0) >= limits::RECONNECT_PAUSE_MAX / 2);
    }

    #[test]
    fn secrets_are_not_shown() {
        let login = Login::Token(Secret::Value("hunter2".to_owned()));
        assert!(!format!("{login:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn a_certificate_without_key_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut options = HubOptions::new(["nats://127.0.0.1:1"]);
        options.tls.cert = Some(file.path().to_owned());
        assert!(matches!(
            prepare(&options).await,
            Err(ConnectError::HalfCertificate)
        ));
    }
}
