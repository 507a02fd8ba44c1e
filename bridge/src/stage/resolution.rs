//! The durable answer to a claim: which messages of a staged batch this node won, and where they stand in the topic.

use bytes::{BufMut, Bytes, BytesMut};
use fanin_core::ids::{BatchNo, LedgerSeq, Offset, StreamSeq, TermsVersion};

use super::{
    StageDecodeError, VERSION, check_version, put_runs, seqs_len, take_runs, varint, varint::Reader,
};

/// A batch that the fold has resolved. It is written durably before the first delivery.
///
/// Layout: version u8 = 1, then LEB128 numbers: batch, ledger position, terms version, base offset, runs,
/// runs x (gap to the end of the run before, length - 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// The batch.
    pub batch: BatchNo,
    /// Where in the ledger its claim stands.
    pub position: LedgerSeq,
    /// The terms in force there.
    pub terms: TermsVersion,
    /// The topic offset of the first won message; the others follow without gaps in the order of their sequences.
    pub base: Offset,
    /// The won sequences as ascending, disjoint runs, both ends inclusive. Empty: nothing was won.
    pub won: Vec<(StreamSeq, StreamSeq)>,
}

impl Resolution {
    /// Number of won messages.
    #[must_use]
    pub fn won_count(&self) -> u64 {
        seqs_len(&self.won)
    }

    /// The bytes for the head of a record with an empty body.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(32 + self.won.len() * 4);
        out.put_u8(VERSION);
        varint::put(&mut out, self.batch.0);
        varint::put(&mut out, self.position.0);
        varint::put(&mut out, u64::from(self.terms.0));
        varint::put(&mut out, self.base.0);
        put_runs(&mut out, &self.won);
        out.freeze()
    }

    /// Reads what [`Resolution::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not a resolution of a version this build knows.
    pub fn decode(bytes: &[u8]) -> Result<Resolution, StageDecodeError> {
        let mut reader = Reader::new(bytes);
        check_version(&mut reader)?;
        let resolution = Resolution {
            batch: BatchNo(reader.number()?),
            position: LedgerSeq(reader.number()?),
            terms: TermsVersion(reader.number_u32()?),
            base: Offset(reader.number()?),
            won: take_runs(&mut reader)?,
        };
        reader.finish()?;
        Ok(resolution)
    }
}
