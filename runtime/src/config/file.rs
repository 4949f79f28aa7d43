//! `weir.toml`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Error, FILE_NAME};
use crate::toml_file::Document;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// Of the file; its paths are relative to it.
    #[serde(skip)]
    pub folder: PathBuf,
    #[serde(default)]
    pub nats: NatsTable,
    #[serde(default)]
    pub ledger: LedgerTable,
    #[serde(default)]
    pub host: HostTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NatsTable {
    pub url: Option<String>,
    pub context: Option<String>,
    pub creds: Option<PathBuf>,
    pub nkey: Option<PathBuf>,
    pub tls_ca: Option<PathBuf>,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LedgerTable {
    pub name: Option<String>,
    #[serde(default)]
    pub subjects: Vec<String>,
    pub replicas: Option<usize>,
    pub event_ttl: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HostTable {
    pub name: Option<String>,
    pub plugins: Option<PathBuf>,
    pub data: Option<PathBuf>,
    pub http: Option<String>,
    pub threads: Option<usize>,
    pub activity_threads: Option<usize>,
    pub cache_mib: Option<usize>,
    #[serde(default)]
    pub trusted_keys: Vec<String>,
}

impl File {
    /// Reads the file that was named, or the one in the working directory if
    /// there is one, or nothing.
    pub fn load(named: Option<&Path>) -> Result<File, Error> {
        let path = named.unwrap_or(Path::new(FILE_NAME));
        match std::fs::read_to_string(path) {
            Ok(text) => File::parse(path, &text),
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                Ok(File::default())
            }
            Err(error) => Err(Error::Read {
                file: path.to_owned(),
                error,
            }),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<File, Error> {
        let mut file: File = Document { file: path, text }.parse()?;
        file.folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(file)
    }
}
