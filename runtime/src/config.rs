//! Configuration: flags, `WEIR_…` variables and `weir.toml`, in this order of
//! precedence, then defaults.
//!
//! * [`NatsOptions`], [`LedgerOptions`] and [`HostOptions`] are what the command
//!   line gives (clap reads the variables too); each field may be missing.
//! * [`file::File`] is `weir.toml`; each field may be missing as well.
//! * [`Config`] is what came of both, complete and checked: the rest of the host
//!   sees only this.
//!
//! Paths in a file are relative to that file, those of flags and variables to the
//! working directory. A context (or URL) from the command line replaces
//! the whole `[nats]` table, so that credentials of one system never go to another.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::log::jetstream;
use clap::Args;

use crate::model::pattern;

mod context;
mod file;
#[cfg(test)]
mod tests;

/// Read in the working directory where no other file is named.
pub const FILE_NAME: &str = "weir.toml";

const URL_DEFAULT: &str = "nats://127.0.0.1:4222";

/// Loopback, because nothing on it asks who is there.
const HTTP_DEFAULT: &str = "127.0.0.1:9464";

/// Cells kept in memory where nobody says, in MiB.
const CACHE_MIB_DEFAULT: usize = 256;

/// Activities that wait at once where nobody says: all partitions of four handlers. A thread that waits costs
/// some kilobytes.
const ACTIVITY_THREADS_DEFAULT: usize = 64;

/// The most there may be: the engine has a stack for each (1,000 unless told otherwise), and more connections would
/// use up the files that a process may have open (1,024 on most systems).
pub const ACTIVITY_THREADS_MAX: usize = 512;

/// Live sandboxes of one host: at 4 GiB each, a quarter of the address space.
const INSTANCES: u32 = 8_192;

/// What JetStream takes.
const REPLICAS_MAX: usize = 5;

/// Why there is no configuration. All of them are wrong use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: cannot be read: {error}", file.display())]
    Read { file: PathBuf, error: std::io::Error },
    #[error(transparent)]
    File(#[from] crate::toml_file::Error),
    #[error("NATS context {name}: {problem}")]
    Context { name: String, problem: String },
    #[error("{key}: {problem}")]
    Value { key: &'static str, problem: String },
}

/// Everything that a host needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub nats: Nats,
    pub ledger: Ledger,
    pub host: Host,
}

/// How to reach NATS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Nats {
    /// One URL or several, separated by commas. May hold a password: show
    /// [`Nats::url_shown`] instead.
    pub url: String,
    /// Credentials file: a JWT and its seed.
    pub creds: Option<PathBuf>,
    /// File with an nkey seed.
    pub nkey: Option<PathBuf>,
    pub tls_ca: Option<PathBuf>,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
}

impl Nats {
    /// The URL without user and password.
    pub fn url_shown(&self) -> String {
        jetstream::without_credentials(&self.url)
    }
}

impl Nats {
    /// How to connect, under a name that the server shows.
    pub fn options(&self, name: &str) -> jetstream::ConnectOptions {
        jetstream::ConnectOptions {
            url: self.url.clone(),
            creds: self.creds.clone(),
            nkey: self.nkey.clone(),
            tls: jetstream::Tls {
                ca: self.tls_ca.clone(),
                certificate: self.tls_cert.clone().zip(self.tls_key.clone()),
                required: self.tls_cert.is_some(),
            },
            name: Some(name.into()),
        }
    }
}

/// The ledger and how it is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// `[A-Za-z0-9_-]+`, the stream's name.
    pub name: String,
    /// The user's subjects; Weir adds its own.
    pub subjects: Vec<String>,
    pub replicas: usize,
    /// Time to live of emitted events; `None` keeps them.
    pub event_ttl: Option<Duration>,
}

/// What concerns this process only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    /// Folder with handlers.
    pub plugins: Option<PathBuf>,
    /// Folder for what may be thrown away: compiled components.
    pub data: PathBuf,
    /// Address of `/healthz`, `/readyz` and `/metrics`; port 0 takes any.
    pub http: SocketAddr,
    /// Threads that execute handlers; at least 1.
    pub threads: usize,
    /// Threads on which activities wait; 1 to [`ACTIVITY_THREADS_MAX`].
    pub activity_threads: usize,
    /// Bytes of cells that all partitions keep in memory together. What is
    /// over it is read from the state bucket again when it is needed.
    pub cache_bytes: usize,
    /// Public NKeys of which one must have signed a deployment; all do if empty.
    pub trusted: Vec<String>,
    /// Live sandboxes at once, one per partition that is owned and some that are
    /// being replaced. Each is reserved as address space, not as memory.
    pub instances: u32,
    /// What the plugins folder has at start is deployed even if it was replaced by
    /// another deployment since: while developing, the files are what counts.
    pub folder_wins: bool,
}

/// How to reach NATS, from the command line.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "NATS")]
pub struct NatsOptions {
    /// Server to connect to; several are separated by commas [default: nats://127.0.0.1:4222]
    #[arg(
        long = "nats",
        value_name = "URL",
        env = "WEIR_NATS",
        hide_env_values = true,
        global = true
    )]
    pub url: Option<String>,
    /// Context of the `nats` command line tool, instead of a URL
    #[arg(long, value_name = "NAME", env = "WEIR_NATS_CONTEXT", global = true)]
    pub context: Option<String>,
    /// Credentials file
    #[arg(long, value_name = "FILE", env = "WEIR_NATS_CREDS", global = true)]
    pub creds: Option<PathBuf>,
    /// File with an nkey seed
    #[arg(long, value_name = "FILE", env = "WEIR_NATS_NKEY", global = true)]
    pub nkey: Option<PathBuf>,
    /// Certificates to trust beside those of the system
    #[arg(long, value_name = "FILE", env = "WEIR_NATS_TLS_CA", global = true)]
    pub tls_ca: Option<PathBuf>,
    /// Certificate of this client
    #[arg(long, value_name = "FILE", env = "WEIR_NATS_TLS_CERT", global = true)]
    pub tls_cert: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "FILE", env = "WEIR_NATS_TLS_KEY", global = true)]
    pub tls_key: Option<PathBuf>,
}

/// Options of every command that talks to a system.
#[derive(Debug, Clone, Default, Args)]
pub struct Options {
    /// Configuration file [default: weir.toml in this folder, if there is one]
    #[arg(long, value_name = "FILE", env = "WEIR_CONFIG", global = true)]
    pub config: Option<PathBuf>,
    /// Name of the ledger stream
    #[arg(long, value_name = "NAME", env = "WEIR_LEDGER", global = true)]
    pub ledger: Option<String>,
    #[command(flatten)]
    pub nats: NatsOptions,
}

/// How the ledger is created, from the command line.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Ledger")]
pub struct LedgerOptions {
    /// Subjects that handlers emit to, kept in the ledger
    #[arg(long, value_name = "SUBJECTS", env = "WEIR_SUBJECTS", value_delimiter = ',')]
    pub subjects: Option<Vec<String>>,
    /// Replicas of the ledger and buckets, if this host creates them [default: 1]
    #[arg(long, value_name = "N", env = "WEIR_REPLICAS")]
    pub replicas: Option<usize>,
    /// Time after which emitted events expire, like 30d [default: never]
    #[arg(long, value_name = "TIME", env = "WEIR_EVENT_TTL")]
    pub event_ttl: Option<String>,
}

/// What concerns one host, from the command line.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Host")]
pub struct HostOptions {
    /// Name of this host, unique in the ledger [default: HOSTNAME-PID]
    #[arg(long, value_name = "NAME", env = "WEIR_NAME")]
    pub name: Option<String>,
    /// Folder with handlers
    #[arg(long, value_name = "DIR", env = "WEIR_PLUGINS")]
    pub plugins: Option<PathBuf>,
    /// Folder for compiled components [default: .weir]
    #[arg(long, value_name = "DIR", env = "WEIR_DATA")]
    pub data: Option<PathBuf>,
    /// Address of /healthz, /readyz and /metrics; port 0 takes any [default: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDRESS", env = "WEIR_HTTP")]
    pub http: Option<String>,
    /// Threads that execute handlers [default: one per processor]
    #[arg(long, value_name = "N", env = "WEIR_THREADS")]
    pub threads: Option<usize>,
    /// Activities that may wait for the outside world at once [default: 64]
    #[arg(long, value_name = "N", env = "WEIR_ACTIVITY_THREADS")]
    pub activity_threads: Option<usize>,
    /// Memory for cells, in MiB; others are read when they are needed [default: 256]
    #[arg(long, value_name = "N", env = "WEIR_CACHE_MIB")]
    pub cache_mib: Option<usize>,
    /// Public NKeys, separated by commas: only what one of them has signed is run
    #[arg(long, value_name = "KEYS", env = "WEIR_TRUSTED_KEYS", value_delimiter = ',')]
    pub trusted_keys: Option<Vec<String>>,
}

impl Options {
    /// What a command needs that only talks to a system.
    ///
    /// # Errors
    /// A file that cannot be read, or a value that cannot be.
    pub fn client(&self) -> Result<(Nats, String), Error> {
        let file = file::File::load(self.config.as_deref())?;
        Ok((
            nats(&self.nats, &file)?,
            ledger_name(self.ledger.as_deref(), &file)?,
        ))
    }

    /// How to reach NATS, and the ledger as a host would want it, if one is named.
    ///
    /// # Errors
    /// As [`Options::client`].
    pub fn check(&self, ledger: &LedgerOptions) -> Result<(Nats, Option<Ledger>), Error> {
        let file = file::File::load(self.config.as_deref())?;
        let named = self.ledger.is_some() || file.ledger.name.is_some();
        let ledger = match named {
            true => Some(self.named_ledger(ledger, &file)?),
            false => None,
        };
        Ok((nats(&self.nats, &file)?, ledger))
    }

    fn named_ledger(&self, ledger: &LedgerOptions, file: &file::File) -> Result<Ledger, Error> {
        Ok(Ledger {
            name: ledger_name(self.ledger.as_deref(), file)?,
            ..ledger_settings(ledger, file)?
        })
    }

    /// What a host needs.
    ///
    /// # Errors
    /// As [`Options::client`].
    pub fn host(&self, ledger: &LedgerOptions, host: &HostOptions) -> Result<Config, Error> {
        let file = file::File::load(self.config.as_deref())?;
        Ok(Config {
            nats: nats(&self.nats, &file)?,
            ledger: self.named_ledger(ledger, &file)?,
            host: host_settings(host, &file)?,
        })
    }
}

fn nats(options: &NatsOptions, file: &file::File) -> Result<Nats, Error> {
    let file_nats = match options.context.is_some() || options.url.is_some() {
        true => &file::NatsTable::default(),
        false => &file.nats,
    };
    // The credentials of one must not go to the other.
    if options.context.is_some() && options.url.is_some() {
        return Err(Error::Value {
            key: "nats",
            problem:
                "both a URL (--nats, WEIR_NATS) and a context (--context, WEIR_NATS_CONTEXT) are given: \
                      give one"
                    .into(),
        });
    }
    let context_name = options.context.as_ref().or(file_nats.context.as_ref());
    let base = match context_name {
        Some(name) => context::load(name)?,
        None => Nats::default(),
    };
    let in_file = |path: &Option<PathBuf>| path.as_ref().map(|path| file.folder.join(path));
    let pick = |option: &Option<PathBuf>, in_table: &Option<PathBuf>, base: Option<PathBuf>| {
        option.clone().or_else(|| in_file(in_table)).or(base)
    };
    let url = options
        .url
        .clone()
        .or_else(|| file_nats.url.clone())
        .or_else(|| Some(base.url.clone()).filter(|url| !url.is_empty()))
        .unwrap_or_else(|| URL_DEFAULT.into());
    if url.split(',').any(|url| url.trim().is_empty()) {
        return Err(Error::Value {
            key: "nats.url",
            problem: format!(
                "`{}` must be a URL like {URL_DEFAULT}, or several separated by commas",
                jetstream::without_credentials(&url)
            ),
        });
    }
    let nats = Nats {
        url,
        creds: pick(&options.creds, &file_nats.creds, base.creds),
        nkey: pick(&options.nkey, &file_nats.nkey, base.nkey),
        tls_ca: pick(&options.tls_ca, &file_nats.tls_ca, base.tls_ca),
        tls_cert: pick(&options.tls_cert, &file_nats.tls_cert, base.tls_cert),
        tls_key: pick(&options.tls_key, &file_nats.tls_key, base.tls_key),
    };
    if nats.tls_cert.is_some() != nats.tls_key.is_some() {
        return Err(Error::Value {
            key: "nats.tls_cert",
            problem: "a client certificate and its key go together: give tls_cert and tls_key, or neither"
                .into(),
        });
    }
    Ok(nats)
}

fn ledger_name(option: Option<&str>, file: &file::File) -> Result<String, Error> {
    let Some(name) = option.or(file.ledger.name.as_deref()) else {
        return Err(Error::Value {
            key: "ledger.name",
            problem: format!("name the ledger, with --ledger, WEIR_LEDGER or [ledger] name in {FILE_NAME}"),
        });
    };
    let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if name.is_empty() || name.len() > pattern::TOKEN_BYTES_MAX || !name.bytes().all(valid) {
        return Err(Error::Value {
            key: "ledger.name",
            problem: format!(
                "`{name}` is no name: 1 to {} of the characters A-Z, a-z, 0-9, _ and -",
                pattern::TOKEN_BYTES_MAX
            ),
        });
    }
    Ok(name.to_owned())
}

/// All of the ledger but its name.
fn ledger_settings(options: &LedgerOptions, file: &file::File) -> Result<Ledger, Error> {
    let subjects = match &options.subjects {
        Some(subjects) => subjects
            .iter()
            .map(|s| s.trim().to_owned())
            .filter(|s| !s.is_empty())
            .collect(),
        None => file.ledger.subjects.clone(),
    };
    crate::ledger::check_subjects(&subjects).map_err(|problem| Error::Value {
        key: "ledger.subjects",
        problem,
    })?;
    let replicas = options.replicas.or(file.ledger.replicas).unwrap_or(1);
    if !(1..=REPLICAS_MAX).contains(&replicas) {
        return Err(Error::Value {
            key: "ledger.replicas",
            problem: format!("{replicas} must be from 1 to {REPLICAS_MAX}"),
        });
    }
    let event_ttl = options.event_ttl.as_ref().or(file.ledger.event_ttl.as_ref());
    let event_ttl = event_ttl
        .map(|text| duration(text))
        .transpose()
        .map_err(|problem| Error::Value {
            key: "ledger.event_ttl",
            problem,
        })?;
    Ok(Ledger {
        name: String::new(),
        subjects,
        replicas,
        event_ttl,
    })
}

fn host_settings(options: &HostOptions, file: &file::File) -> Result<Host, Error> {
    let name = options.name.clone().or_else(|| file.host.name.clone());
    let name = name.unwrap_or_else(|| format!("{}-{}", crate::os::hostname(), std::process::id()));
    if name.is_empty() || name.len() > pattern::TOKEN_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(Error::Value {
            key: "host.name",
            problem: format!(
                "`{}` must be 1 to {} bytes without control characters",
                name.escape_debug(),
                pattern::TOKEN_BYTES_MAX
            ),
        });
    }
    let http = options
        .http
        .as_deref()
        .or(file.host.http.as_deref())
        .unwrap_or(HTTP_DEFAULT);
    let http = http.parse().map_err(|_| Error::Value {
        key: "host.http",
        problem: format!("`{http}` must be an address and a port, like {HTTP_DEFAULT}"),
    })?;
    let threads = match options.threads.or(file.host.threads) {
        Some(0) => {
            return Err(Error::Value {
                key: "host.threads",
                problem: "0 must be at least 1".into(),
            });
        }
        Some(threads) => threads,
        // Not known in some sandboxes; one thread always works.
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let activity_threads = options.activity_threads.or(file.host.activity_threads);
    let activity_threads = activity_threads.unwrap_or(ACTIVITY_THREADS_DEFAULT);
    if !(1..=ACTIVITY_THREADS_MAX).contains(&activity_threads) {
        return Err(Error::Value {
            key: "host.activity_threads",
            problem: format!("{activity_threads} must be from 1 to {ACTIVITY_THREADS_MAX}"),
        });
    }
    let cache_mib = options
        .cache_mib
        .or(file.host.cache_mib)
        .unwrap_or(CACHE_MIB_DEFAULT);
    let cache_bytes = cache_mib
        .checked_mul(1024 * 1024)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| Error::Value {
            key: "host.cache_mib",
            problem: format!("{cache_mib} must be at least 1, and fit into memory"),
        })?;
    let in_file = |path: &PathBuf| file.folder.join(path);
    let trusted = options.trusted_keys.as_ref().unwrap_or(&file.host.trusted_keys);
    for key in trusted {
        nkeys::KeyPair::from_public_key(key).map_err(|error| Error::Value {
            key: "host.trusted_keys",
            problem: format!("`{key}` is no public NKey, like UA…: {error}"),
        })?;
    }
    Ok(Host {
        name,
        plugins: options
            .plugins
            .clone()
            .or_else(|| file.host.plugins.as_ref().map(in_file)),
        data: options
            .data
            .clone()
            .or_else(|| file.host.data.as_ref().map(in_file))
            .unwrap_or_else(|| Path::new(".weir").to_owned()),
        http,
        threads,
        activity_threads,
        cache_bytes,
        trusted: trusted.clone(),
        instances: INSTANCES,
        folder_wins: false,
    })
}

/// Reads `90s`, `15m`, `12h`, `30d` or `2w`; at least a second, which is the
/// least that the server takes as a TTL.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(weir::config::duration("2m"), Ok(Duration::from_secs(120)));
/// assert!(weir::config::duration("2").is_err());
/// ```
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("`{text}` must be a number and a unit (s, m, h, d or w), like 30d, and at least 1s");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    match number.checked_mul(seconds) {
        Some(seconds @ 1..) => Ok(Duration::from_secs(seconds)),
        _ => Err(wrong()),
    }
}
