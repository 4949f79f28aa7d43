//! Every name that Weir gives to something in NATS (PROTOCOL, "Subjects and
//! records"). `<L>` is the ledger, `<h>` the handler, `<g>` its generation,
//! `<p>` a partition; keys, cells and timer names are written as
//! [tokens](super::key::token).
//!
//! ```text
//! stream <L>
//!   $WEIR.<L>.c.<h>.<g>.<p>                        commit records
//!   $WEIR.<L>.t.<h>.<g>.<p>.<key>.<name>.<gen>     timers, one subject per generation
//!   $WEIR.<L>.f.<h>.<g>.<p>                        timers that fired
//!   $WEIR.<L>.d.<h>.<g>.<p>.<event id>.{m,b}       dead letters: what happened, the original bytes
//!   $WEIR.<L>.r.<h>.<g>.<p>                        redriven dead letters, and control events
//!   $WEIR.<L>.x.c.<name>                           shared cells: the last message is the value
//!   $WEIR.<L>.x.l.<name>                           locks: the last message says who holds it
//!   $WEIR.<L>.x.n                                  nothing; carries what a batch expects elsewhere
//!   $WEIR.<L>.o.<h>.<g>.<p>                        entries of the outbox: what is for streams beside the ledger
//!   $WEIR.<L>.s.<source>                           how far an outbox of a SQL database is in the ledger
//! KV bucket weir_<L>
//!   <h>.<g>.<p>.meta                               fence and sentinel of the checkpoints
//!   <h>.<g>.<p>.<key>.<cell>                       cells; the cell `=timers` holds a key's live timers
//! KV bucket weir_<L>_hosts
//!   hosts.<host>                                   what each host says of itself, with a TTL
//!   alive.<host>                                   that it is alive, and which partitions it holds
//! KV bucket weir_<L>_handlers
//!   <h>                                            deployments: what is to run, and what was, as its history
//! object store weir_<L>_artifacts
//!   <SHA-256 of a component>                       components
//! ```

use super::key::{token, untoken};

/// Generation of a handler's first deployment under its name.
pub const FIRST_GENERATION: u64 = 1;

/// Bucket token of a key's live timers. No cell's name is written like this.
pub const TIMERS_CELL: &str = "=timers";

/// What Weir's own subjects begin with, of every ledger.
pub const INTERNAL_PREFIX: &str = "$WEIR.";

/// The subjects that the ledger stream needs beside those of the user.
pub fn ledger_internal(ledger: &str) -> String {
    format!("$WEIR.{ledger}.>")
}

/// The last message here is the value of a shared cell.
pub fn shared_cell(ledger: &str, name: &str) -> String {
    format!("$WEIR.{ledger}.x.c.{}", token(name))
}

/// The last message here says who holds a lock.
pub fn lock(ledger: &str, name: &str) -> String {
    format!("$WEIR.{ledger}.x.l.{}", token(name))
}

/// Where all locks are.
pub fn locks(ledger: &str) -> String {
    format!("$WEIR.{ledger}.x.l.*")
}

/// Name of the lock whose messages are on a subject.
pub fn parse_lock(ledger: &str, subject: &str) -> Option<String> {
    untoken(subject.strip_prefix(&format!("$WEIR.{ledger}.x.l."))?)
}

/// Where services that are no handlers ask for locks: no subject of any stream.
pub fn lock_requests(ledger: &str) -> String {
    format!("weir.{ledger}.locks.*")
}

/// Messages that say nothing, and only carry what their batch expects of another subject.
pub fn nothing(ledger: &str) -> String {
    format!("$WEIR.{ledger}.x.n")
}

/// Where an outbox source keeps how far it is.
pub fn source_record(ledger: &str, source: &str) -> String {
    format!("$WEIR.{ledger}.s.{source}")
}

/// Stream behind the state bucket.
pub fn bucket_stream(ledger: &str) -> String {
    format!("KV_weir_{ledger}")
}

/// Stream behind the bucket in which hosts announce themselves.
pub fn hosts_stream(ledger: &str) -> String {
    format!("KV_weir_{ledger}_hosts")
}

pub fn host_key(ledger: &str, host: &str) -> String {
    format!("$KV.weir_{ledger}_hosts.hosts.{}", token(host))
}

/// The further parts of what a host says, where it is too much for one message.
pub fn host_part_key(ledger: &str, host: &str, part: usize) -> String {
    match part {
        0 => host_key(ledger, host),
        _ => format!("{}.{part}", host_key(ledger, host)),
    }
}

/// Where a host shows that it is alive.
pub fn alive_key(ledger: &str, host: &str) -> String {
    format!("$KV.weir_{ledger}_hosts.alive.{}", token(host))
}

pub fn alive_keys(ledger: &str) -> String {
    format!("$KV.weir_{ledger}_hosts.alive.*")
}

pub fn host_keys(ledger: &str) -> String {
    format!("$KV.weir_{ledger}_hosts.hosts.>")
}

/// Stream behind the bucket of deployments.
pub fn handlers_stream(ledger: &str) -> String {
    format!("KV_weir_{ledger}_handlers")
}

/// Where the deployments of one handler are.
pub fn handler_key(ledger: &str, handler: &str) -> String {
    format!("$KV.weir_{ledger}_handlers.{handler}")
}

/// Where all deployments are.
pub fn handler_keys(ledger: &str) -> String {
    format!("$KV.weir_{ledger}_handlers.*")
}

/// Name of the object store with the components.
pub fn artifacts_bucket(ledger: &str) -> String {
    format!("weir_{ledger}_artifacts")
}

/// Stream behind that object store.
pub fn artifacts_stream(ledger: &str) -> String {
    format!("OBJ_weir_{ledger}_artifacts")
}

/// The commit records of all handlers.
pub fn records(ledger: &str) -> String {
    format!("$WEIR.{ledger}.c.>")
}

/// Whose commit records are on a subject: the handler, in one generation, and the partition.
pub fn parse_record(ledger: &str, subject: &str) -> Option<(HandlerNames, u32)> {
    let rest = subject.strip_prefix(&format!("$WEIR.{ledger}.c."))?;
    let mut tokens = rest.split('.');
    let (handler, generation) = (tokens.next()?, tokens.next()?.parse().ok()?);
    let partition = tokens.next()?.parse().ok()?;
    let whole = tokens.next().is_none();
    whole.then(|| (HandlerNames::new(ledger, handler, generation), partition))
}

/// The names that belong to one handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerNames {
    pub ledger: String,
    pub handler: String,
    pub generation: u64,
}

impl HandlerNames {
    pub fn new(ledger: &str, handler: &str, generation: u64) -> Self {
        HandlerNames {
            ledger: ledger.into(),
            handler: handler.into(),
            generation,
        }
    }

    fn subject(&self, kind: char, rest: &str) -> String {
        format!(
            "$WEIR.{}.{kind}.{}.{}.{rest}",
            self.ledger, self.handler, self.generation
        )
    }

    fn key(&self, rest: &str) -> String {
        format!(
            "$KV.weir_{}.{}.{}.{rest}",
            self.ledger, self.handler, self.generation
        )
    }

    pub fn record(&self, partition: u32) -> String {
        self.subject('c', &partition.to_string())
    }

    pub fn records(&self) -> String {
        self.subject('c', "*")
    }

    pub fn timer(&self, partition: u32, key: &str, name: &str, generation: u64) -> String {
        self.subject(
            't',
            &format!("{partition}.{}.{}.{generation}", token(key), token(name)),
        )
    }

    pub fn timers_all(&self) -> String {
        self.subject('t', ">")
    }

    /// Key, name and generation of a timer's subject.
    pub fn parse_timer(&self, subject: &str) -> Option<(String, String, u64)> {
        let rest = subject.strip_prefix(&self.subject('t', ""))?;
        let mut tokens = rest.split('.').skip(1);
        let key = untoken(tokens.next()?)?;
        let name = untoken(tokens.next()?)?;
        let generation = tokens.next()?.parse().ok()?;
        tokens.next().is_none().then_some((key, name, generation))
    }

    pub fn fired(&self, partition: u32) -> String {
        self.subject('f', &partition.to_string())
    }

    pub fn fired_all(&self) -> String {
        self.subject('f', "*")
    }

    pub fn redriven(&self, partition: u32) -> String {
        self.subject('r', &partition.to_string())
    }

    pub fn redriven_all(&self) -> String {
        self.subject('r', "*")
    }

    /// Entries of a partition's outbox.
    pub fn outbox(&self, partition: u32) -> String {
        self.subject('o', &partition.to_string())
    }

    pub fn outbox_all(&self) -> String {
        self.subject('o', "*")
    }

    /// Subject of a dead letter's description; the id is the event's.
    pub fn dead_letter(&self, partition: u32, event_id: &str) -> String {
        self.subject('d', &format!("{partition}.{}.m", token(event_id)))
    }

    /// Subject of a dead letter's original bytes.
    pub fn dead_letter_body(&self, partition: u32, event_id: &str) -> String {
        self.subject('d', &format!("{partition}.{}.b", token(event_id)))
    }

    /// The description of one dead letter, whatever its partition.
    pub fn dead_letter_anywhere(&self, event_id: &str) -> String {
        self.subject('d', &format!("*.{}.m", token(event_id)))
    }

    /// The descriptions of a partition's dead letters.
    pub fn dead_letters_of(&self, partition: u32) -> String {
        self.subject('d', &format!("{partition}.*.m"))
    }

    /// Every dead letter's description.
    pub fn dead_letters(&self) -> String {
        self.subject('d', "*.*.m")
    }

    /// Descriptions and bodies of all dead letters.
    pub fn dead_letters_all(&self) -> String {
        self.subject('d', ">")
    }

    /// Everything in the state bucket.
    pub fn bucket_all(&self) -> String {
        self.key(">")
    }

    pub fn meta(&self, partition: u32) -> String {
        self.key(&format!("{partition}.meta"))
    }

    pub fn cell(&self, partition: u32, key: &str, cell: &str) -> String {
        self.key(&format!("{partition}.{}.{}", token(key), token(cell)))
    }

    /// The cell of that name of all keys of a partition.
    pub fn cell_in_partition(&self, partition: u32, cell: &str) -> String {
        self.key(&format!("{partition}.*.{}", token(cell)))
    }

    pub fn timers_cell(&self, partition: u32, key: &str) -> String {
        self.key(&format!("{partition}.{}.{TIMERS_CELL}", token(key)))
    }

    /// All cells of one key, its timers among them.
    pub fn cells_of(&self, partition: u32, key: &str) -> String {
        self.key(&format!("{partition}.{}.*", token(key)))
    }

    /// All cells of all keys.
    pub fn cells_all(&self) -> String {
        self.key("*.*.*")
    }

    /// The cell of that name of all keys.
    pub fn cell_of_all(&self, cell: &str) -> String {
        self.key(&format!("*.*.{}", token(cell)))
    }

    /// Partition, key and cell (`None`: its timers) of a bucket key.
    pub fn parse_cell(&self, subject: &str) -> Option<(u32, String, Option<String>)> {
        let rest = subject.strip_prefix(&self.key(""))?;
        let mut tokens = rest.split('.');
        let partition = tokens.next()?.parse().ok()?;
        let key = untoken(tokens.next()?)?;
        let cell = match tokens.next()? {
            TIMERS_CELL => None,
            cell => Some(untoken(cell)?),
        };
        tokens.next().is_none().then_some((partition, key, cell))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let names = HandlerNames::new("L", "h", 3);
        let timer = names.timer(7, "a.b", "", 12);
        assert_eq!(timer, "$WEIR.L.t.h.3.7.a=2Eb.=.12");
        assert_eq!(names.parse_timer(&timer), Some(("a.b".into(), "".into(), 12)));
        assert_eq!(HandlerNames::new("L", "h", 4).parse_timer(&timer), None);
        assert_eq!(
            names.parse_cell(&names.cell(7, "k", "timers")),
            Some((7, "k".into(), Some("timers".into())))
        );
        assert_eq!(
            names.parse_cell(&names.timers_cell(7, "k")),
            Some((7, "k".into(), None))
        );
        assert_eq!(names.parse_cell(&names.meta(7)), None);
        assert_eq!(parse_record("L", &names.record(7)), Some((names, 7)));
        assert_eq!(parse_record("L", "$WEIR.L.t.h.3.7"), None);
    }
}
