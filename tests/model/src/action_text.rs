//! Steps in words, for traces.

use std::fmt;

use crate::actions::Action;
use crate::world::NAMES;

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let behind = |lag: usize| {
            if lag == 0 {
                String::new()
            } else {
                format!(" after reading {lag}")
            }
        };
        match *self {
            Action::Read(who) => write!(f, "{} reads its tail", NAMES[who]),
            Action::Pull { who, lag, pull } => {
                write!(f, "{}{} is delivered pull {pull}", NAMES[who], behind(lag))
            }
            Action::Tick { who, lag } => write!(f, "{}{} does what is due", NAMES[who], behind(lag)),
            Action::Checkpoint { who, lag } => write!(f, "{}{} writes a checkpoint", NAMES[who], behind(lag)),
            Action::Sync(who) => write!(f, "{}'s disk syncs a write", NAMES[who]),
            Action::Finish(who, batch) => write!(f, "{}'s applications finish batch {batch}", NAMES[who]),
            Action::Land(flight) => write!(f, "append {flight} lands"),
            Action::Repeat(flight) => write!(f, "append {flight} lands and will land again"),
            Action::Purge(purge) => write!(f, "purge {purge} is done"),
            Action::Audit(who) => write!(f, "{}'s audit is answered", NAMES[who]),
            Action::StaleAudit(who) => write!(f, "{}'s audit is answered by a stale server", NAMES[who]),
            Action::Repair(who) => write!(f, "{} fetches by sequence", NAMES[who]),
            Action::Unconfirmed(who, batch) => write!(f, "{} hears nothing of batch {batch}", NAMES[who]),
            Action::Hear(who) => write!(
                f,
                "{} hears that its record landed where it had read another",
                NAMES[who]
            ),
            Action::Crash(who) => write!(f, "{} crashes", NAMES[who]),
            Action::Start(who, None) => write!(f, "{} starts", NAMES[who]),
            Action::Start(who, Some(hosts)) => write!(f, "{} starts with host set {hosts}", NAMES[who]),
            Action::Orphan(who) => write!(f, "{} starts and dies behind its EPOCH", NAMES[who]),
            Action::Pass => write!(f, "time passes"),
            Action::Skip(seq) => write!(f, "the consumer passes over message {seq}"),
            Action::Reset => write!(f, "the consumer loses its acknowledgements"),
            Action::Lose(seq) => write!(f, "the source loses message {seq}"),
            Action::Copy(who) => write!(f, "{}'s disk is copied to C", NAMES[who]),
            Action::Terms => write!(f, "the operator changes the filters"),
            Action::PowerLoss => write!(f, "the hub loses power and what it had not synced"),
            Action::Stranger => write!(f, "a record of a later version lands"),
            Action::Evacuate(who) => write!(f, "the operator evacuates {}", NAMES[who]),
            Action::Recreate => write!(f, "the source is deleted and created again"),
            Action::RollBack { kept, acks } => {
                let with = if acks { " with its consumer" } else { "" };
                write!(f, "the source{with} goes back to a copy that ends at {kept}")
            }
            Action::Regrow => write!(f, "new messages get the sequences that the source has lost"),
        }
    }
}
