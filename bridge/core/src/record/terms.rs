//! TERMS: what the mapping takes and whom it serves (P9).

use std::collections::BTreeMap;

use crate::ids::{Incarnation, TermsVersion};
use crate::limits::{APPS_MAX, FILTERS_MAX, NAME_BYTES_MAX, SOURCES_MAX, SUBJECT_BYTES_MAX, TERMS_BYTES_MAX};
use crate::wire::{DecodeError, Reader, Writer};

/// A source as the terms name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceTerms {
    /// The stream's name.
    pub stream: String,
    /// The filter subjects, sorted; empty means every message of the stream.
    pub filters: Vec<String>,
}

/// The terms of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Terms {
    /// Grows by one with each TERMS record.
    pub version: TermsVersion,
    /// Sources by incarnation.
    pub sources: BTreeMap<Incarnation, SourceTerms>,
    /// The app set: each application with the version it entered by. It receives messages claimed from then on.
    pub apps: BTreeMap<String, TermsVersion>,
}

impl Terms {
    /// The applications a batch claimed under `version` must serve, as far as they are still in the app set.
    pub fn served(&self, version: TermsVersion) -> impl Iterator<Item = &str> {
        self.apps
            .iter()
            .filter(move |&(_, &since)| since <= version)
            .map(|(app, _)| app.as_str())
    }

    /// Whether a TERMS record of these can be written and read. One that cannot be read would halt every bridge of the mapping
    /// for good, since no checkpoint can be written behind it.
    ///
    /// # Errors
    /// The bound that they do not keep.
    pub fn check(&self) -> Result<(), DecodeError> {
        let bytes = self.encode();
        if bytes.len() > TERMS_BYTES_MAX {
            return Err(DecodeError::Limit("bytes of the terms"));
        }
        Terms::decode(&bytes).map(drop)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.uint(1, u64::from(self.version.0));
        for (incarnation, source) in &self.sources {
            let mut inner = Writer::new();
            inner.fixed64(1, incarnation.0);
            inner.bytes(2, source.stream.as_bytes());
            for filter in &source.filters {
                inner.element(3, filter.as_bytes());
            }
            out.element(2, &inner.finish());
        }
        for (app, since) in &self.apps {
            let mut inner = Writer::new();
            inner.bytes(1, app.as_bytes());
            inner.uint(2, u64::from(since.0));
            out.element(3, &inner.finish());
        }
        out.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Terms, DecodeError> {
        let mut terms = Terms::default();
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = reader.field()? {
            match number {
                1 => terms.version = TermsVersion(value.uint32()?),
                2 => {
                    let (incarnation, source) = decode_source(value.bytes()?)?;
                    if terms.sources.len() >= SOURCES_MAX
                        || terms.sources.insert(incarnation, source).is_some()
                    {
                        return Err(DecodeError::Limit("sources of the terms"));
                    }
                }
                3 => {
                    let (app, since) = decode_app(value.bytes()?)?;
                    if terms.apps.len() >= APPS_MAX || terms.apps.insert(app, since).is_some() {
                        return Err(DecodeError::Limit("applications of the terms"));
                    }
                }
                other => return Err(DecodeError::UnknownField(other)),
            }
        }
        if terms.version.0 == 0 || terms.apps.values().any(|&since| since > terms.version) {
            return Err(DecodeError::Invalid("version of the terms"));
        }
        Ok(terms)
    }
}

fn decode_source(bytes: &[u8]) -> Result<(Incarnation, SourceTerms), DecodeError> {
    let mut incarnation = Incarnation::default();
    let mut source = SourceTerms {
        stream: String::new(),
        filters: Vec::new(),
    };
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        match number {
            1 => incarnation = Incarnation(value.fixed64()?),
            2 => source.stream = value.text(NAME_BYTES_MAX)?,
            3 if source.filters.len() < FILTERS_MAX => source.filters.push(value.text(SUBJECT_BYTES_MAX)?),
            3 => return Err(DecodeError::Limit("filters of a source")),
            other => return Err(DecodeError::UnknownField(other)),
        }
    }
    Ok((incarnation, source))
}

fn decode_app(bytes: &[u8]) -> Result<(String, TermsVersion), DecodeError> {
    let mut app = String::new();
    let mut since = TermsVersion::default();
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        match number {
            1 => app = value.text(NAME_BYTES_MAX)?,
            2 => since = TermsVersion(value.uint32()?),
            other => return Err(DecodeError::UnknownField(other)),
        }
    }
    Ok((app, since))
}
