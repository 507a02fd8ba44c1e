//! What commands need that look at a whole mapping: its ledger at the hub, and its nodes by their sockets.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use fanin_config::{Config, Listen};
use fanin_core::ids::{Incarnation, StreamSeq};
use fanin_hub::port::Hub;
use fanin_hub::{Connection, CreatePolicy, LedgerOptions};

use super::exit::{Exit, connect_exit};
use super::failure::Failure;
use super::load::{self, Overrides};
use crate::audit::gaps::{Sweep, sweep};
use crate::audit::{AuditError, Folded, NodeView, ask_node, read_ledger};
use crate::mapping::MappingOptions;
use crate::mapping::join::{JoinError, Source, find_sources};
use crate::mapping::watch::consumer_spec;
use crate::telemetry::codes;

/// Which mapping, and which of its nodes.
#[derive(Clone, Debug, ClapArgs)]
pub(super) struct ClusterArgs {
    /// The configuration file of a node of the mapping; conf.d/*.yaml beside it is read too.
    #[arg(short = 'c', long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    overrides: Overrides,
    /// The mapping; may be left out when the configuration has one only.
    #[arg(short = 'm', long, value_name = "NAME")]
    mapping: Option<String>,
    /// Sockets of the nodes to ask, separated by commas or repeated [default: the configuration's own].
    #[arg(short = 'n', long = "node", value_name = "URI", value_delimiter = ',')]
    nodes: Vec<String>,
}

/// A mapping of a configuration, with the hub at hand.
pub(super) struct Cluster {
    pub(super) options: MappingOptions,
    pub(super) hub: Connection,
    sockets: Vec<String>,
}

/// A source with what the hub says about its consumer.
pub(super) struct SourceLook {
    pub(super) incarnation: Incarnation,
    pub(super) source: Source,
    /// Its acknowledgement floor; `None` when there is no consumer.
    pub(super) floor: Option<StreamSeq>,
    /// Messages not delivered yet, and delivered but not acknowledged.
    pub(super) pending: (u64, u64),
}

impl ClusterArgs {
    /// Loads the configuration, chooses the mapping and connects to the hub.
    pub(super) async fn open(&self) -> Result<Cluster, Failure> {
        let loaded = load::load(&self.config, &self.overrides).map_err(|error| load::failure(&error))?;
        let options = self.choose(&loaded.config)?;
        let mut reach = crate::app::hub_options(&loaded.config);
        reach.wait_for_hub = false;
        let hub = Connection::connect(reach)
            .await
            .map_err(|error| Failure::of(connect_exit(&error, Exit::Config), error.code(), error))?;
        let Listen::Unix(own) = &loaded.config.listen;
        let sockets = if self.nodes.is_empty() {
            vec![format!("unix://{}", own.display())]
        } else {
            self.nodes.clone()
        };
        Ok(Cluster {
            options,
            hub,
            sockets,
        })
    }

    fn choose(&self, config: &Config) -> Result<MappingOptions, Failure> {
        let names = || config.mappings.keys().cloned().collect::<Vec<_>>().join(", ");
        let chosen = match &self.mapping {
            Some(name) => config.mappings.get_key_value(name),
            None if config.mappings.len() == 1 => config.mappings.first_key_value(),
            None => {
                let text = format!(
                    "the configuration has several mappings; choose one with --mapping: {}",
                    names()
                );
                return Err(Failure::new(Exit::Usage, codes::UNKNOWN_MAPPING, text));
            }
        };
        let Some((name, section)) = chosen else {
            let text = format!(
                "the configuration has no mapping {:?}; it has: {}",
                self.mapping.as_deref().unwrap_or_default(),
                names()
            );
            return Err(Failure::new(Exit::Usage, codes::UNKNOWN_MAPPING, text));
        };
        Ok(MappingOptions::of(config, name, section, false, false))
    }
}

impl Cluster {
    /// Asks every node; those that do not answer are named on standard error.
    pub(super) async fn ask_nodes(&self) -> Vec<NodeView> {
        self.ask(false).await
    }

    /// [`Self::ask_nodes`], with the folds in their memory.
    pub(super) async fn ask_memories(&self) -> Vec<NodeView> {
        self.ask(true).await
    }

    async fn ask(&self, with_state: bool) -> Vec<NodeView> {
        let mut views: Vec<NodeView> = Vec::new();
        for socket in &self.sockets {
            match ask_node(socket, &self.options.name, with_state).await {
                Ok(view) => views.push(view),
                Err(error) => super::output::note(&format!("note: {error}")),
            }
        }
        views
    }

    /// Reads the ledger.
    pub(super) async fn read(&self) -> Result<Folded, Failure> {
        self.read_beside(&[]).await
    }

    /// Reads the ledger, to compare it with what these nodes have told before.
    pub(super) async fn read_beside(&self, nodes: &[NodeView]) -> Result<Folded, Failure> {
        read_ledger(&self.hub, &self.ledger(), nodes)
            .await
            .map_err(|error: AuditError| {
                let exit = if error.retryable() {
                    Exit::Unavailable
                } else {
                    Exit::Failed
                };
                Failure::of(exit, error.code(), error)
            })
    }

    /// Which ledger is meant. It is not created.
    pub(super) fn ledger(&self) -> LedgerOptions {
        LedgerOptions {
            prefix: self.options.prefix.clone(),
            may_create: false,
            ..LedgerOptions::new(&self.options.name)
        }
    }

    /// Looks at every configured source.
    pub(super) async fn sources(&self) -> Result<Vec<SourceLook>, Failure> {
        let found = find_sources(&self.options, &self.hub)
            .await
            .map_err(join_failed)?;
        let mut looks = Vec::new();
        for (incarnation, source) in found {
            let spec = consumer_spec(&self.options, incarnation, &source);
            let consumer = Hub::ensure_consumer(&self.hub, &spec, CreatePolicy::Never).await;
            let info = consumer.ok().map(|consumer| consumer.info);
            looks.push(SourceLook {
                incarnation,
                source,
                floor: info.as_ref().map(|info| info.ack_floor),
                pending: info.map_or((0, 0), |info| (info.pending, info.ack_pending)),
            });
        }
        Ok(looks)
    }

    /// Sweeps the gaps of every source that has a consumer.
    pub(super) async fn sweeps(
        &self,
        folded: &Folded,
        sources: &[SourceLook],
    ) -> Result<Vec<(String, Sweep)>, Failure> {
        let mut sweeps = Vec::new();
        for look in sources {
            let Some(floor) = look.floor else { continue };
            let terms = &look.source.terms;
            let swept = sweep(
                &self.hub,
                &folded.fold,
                look.incarnation,
                (&terms.stream, &terms.filters),
                floor,
            )
            .await
            .map_err(|error| Failure::of(Exit::Unavailable, error.code(), error))?;
            sweeps.push((terms.stream.clone(), swept));
        }
        Ok(sweeps)
    }
}

fn join_failed(error: JoinError) -> Failure {
    let exit = if error.retryable() {
        Exit::Unavailable
    } else {
        Exit::Config
    };
    Failure::of(exit, error.code(), error)
}
