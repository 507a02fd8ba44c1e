//! What a source loses before anybody has taken it. A hub that does not sync may forget messages that it confirmed to their
//! publishers. What is claimed or in hand tells by itself (`reused`); what nobody has taken leaves no trace but where the stream
//! ended when it was looked at last. Nothing that is owned depends on such a message, so the node tells of it and goes on.

use super::Node;
use crate::effect::{Effect, Fact};
use crate::ids::{Incarnation, StreamSeq, Tick};
use crate::mutants::{self, Mutant};

/// A source as one look found it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look<'a> {
    /// What it must have given, as of before the look: `SourceProbe::reaches`.
    pub(super) reaches: StreamSeq,
    /// The last sequence it says it has given.
    pub(super) last: StreamSeq,
    /// When that message was stored, nanoseconds since the Unix epoch; 0 when the hub does not say.
    pub(super) last_ns: i64,
    /// The messages that were looked for and are there, with their publish times.
    pub(super) probes: &'a [(StreamSeq, i64)],
}

/// Where a source ended when it was looked at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct End {
    pub(super) last: StreamSeq,
    last_ns: i64,
    /// Up to where others tell of a loss: what was claimed or in hand then, or closed.
    taken: StreamSeq,
    /// It seems to end earlier since this moment.
    shorter: Option<Tick>,
    /// The message at its end was not there at the last look, although the stream goes on behind it.
    absent: bool,
}

impl End {
    fn of(look: &Look<'_>) -> End {
        End {
            last: look.last,
            last_ns: look.last_ns,
            taken: look.reaches,
            shorter: None,
            absent: false,
        }
    }

    /// What is kept after another look, and behind which sequence anything up to the old end may be lost, if some of it certainly is.
    /// A shorter stream must be seen for `audit_ms`, as in `reused`; another message under the old end's sequence is certain at once.
    ///
    /// Where a stream ends when it is found shorter says nothing of what it has lost: it may have grown again already. So everything
    /// that nobody had taken counts. And a message is looked for before the stream's end is asked for, so that one that is not there
    /// shows that it was deleted only when it was not there twice.
    fn after(self, now: Tick, look: &Look<'_>, audit_ms: u64) -> (End, Option<StreamSeq>) {
        let at_end = look.probes.iter().find(|(seq, _)| *seq == self.last);
        if at_end.is_some_and(|&(_, at)| self.last_ns != 0 && at != self.last_ns) {
            return (End::of(look), Some(self.taken));
        }
        if look.last >= self.last {
            let is_doubtful = at_end.is_none() && look.last > self.last && self.last.0 > 0;
            if is_doubtful && !self.absent {
                let kept = End {
                    absent: true,
                    shorter: None,
                    ..self
                };
                return (kept, None);
            }
            return (End::of(look), None);
        }
        match self.shorter {
            Some(since) if now.since(since) >= audit_ms => (End::of(look), Some(self.taken)),
            since @ (Some(_) | None) => {
                let shorter = since.or(Some(now));
                (End { shorter, ..self }, None)
            }
        }
    }
}

impl Node {
    /// A source in which everything known is still as it was has been looked at: does it still have what nobody has taken?
    pub(super) fn note_end(
        &mut self,
        now: Tick,
        incarnation: Incarnation,
        look: &Look<'_>,
        out: &mut Vec<Effect>,
    ) {
        let Some(known) = self.ends.get(&incarnation) else {
            self.ends.insert(incarnation, End::of(look));
            return;
        };
        let through = known.last;
        let (kept, lost_behind) = known.after(now, look, self.policy.audit_ms);
        self.ends.insert(incarnation, kept);
        let lost_behind = lost_behind.filter(|behind| *behind < through);
        if let Some(behind) = lost_behind.filter(|_| !mutants::on(Mutant::ForgetsEnds)) {
            out.push(Effect::Fact(Fact::SourceLost {
                incarnation,
                first: behind.next(),
                last: through,
            }));
        }
    }
}
