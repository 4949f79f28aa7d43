//! What a guest sees of the host: the imports of the world `handler`, over the
//! state of one key and the effects of one invocation.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tracing::Level;
use wasmtime::component::HasData;

use super::bindings::weir::handler as wit;
use super::guest_log::GuestLog;
use super::http::{Outgoing, Transport};
use super::limiter::Limiter;
use super::program::{Kind, ProgramSettings};
use super::shared::{Locked, SharedUses};
use super::wasi::Wasi;
use crate::effects::check::{self, Tally};
use crate::effects::{Effects, Emit, TimerSet};
use crate::model::event::Headers;
use crate::model::hidden::{VERSION_CELL, is_hidden};
use crate::model::limits::OUTBOX_BYTES;
use crate::shared::Access;
use crate::state::KeyState;

/// The data of one instance's store.
pub(super) struct Host {
    settings: Arc<ProgramSettings>,
    pub limiter: Limiter,
    /// Shared with the guest's stdout and stderr.
    log: Arc<Mutex<GuestLog>>,
    /// Only for programs that import WASI.
    pub wasi: Option<Box<Wasi>>,
    /// `None` for programs that use nothing shared.
    shared: Option<Arc<dyn Access>>,
    /// Only for activities.
    pub http: Option<Box<Outgoing>>,
    /// `None` while the instance is made and between events.
    invocation: Option<Invocation>,
}

/// One call of `handle`, as far as it got.
struct Invocation {
    state: Arc<KeyState>,
    effects: Effects,
    tally: Tally,
    /// Cells and live timers that the key would have if the call ended now.
    cells: usize,
    timers: usize,
    /// The key's cells were brought to the version of the code.
    migrated: bool,
    shared: SharedUses,
}

/// Ties [`Host`] to the generated traits.
pub(super) struct HostData;

impl HasData for HostData {
    type Data<'a> = &'a mut Host;
}

impl Host {
    pub fn new(
        settings: Arc<ProgramSettings>,
        kind: Kind,
        transport: &Arc<Transport>,
        shared: Option<Arc<dyn Access>>,
    ) -> Self {
        let activity = kind == Kind::Activity;
        let log = Arc::new(Mutex::new(GuestLog::new(
            settings.handler.clone(),
            settings.limits.log_bytes,
        )));
        Host {
            limiter: Limiter::new(settings.limits.memory_mib),
            wasi: (kind != Kind::Plain).then(|| Box::new(Wasi::new(&log, activity && transport.is_real()))),
            http: activity.then(|| Box::new(Outgoing::new(transport, &settings))),
            settings,
            log,
            shared,
            invocation: None,
        }
    }

    pub fn begin(&mut self, event_id: &str, key: &Arc<str>, clock: u64, state: &Arc<KeyState>) {
        self.limiter.take_refused();
        self.log().begin(event_id.to_owned());
        self.invocation = Some(Invocation {
            effects: Effects::default(),
            tally: Tally::default(),
            cells: state.visible_len(),
            timers: state.timers.len(),
            migrated: false,
            shared: SharedUses::new(key, clock),
            state: Arc::clone(state),
        });
    }

    pub fn migrated(&mut self) {
        if let Some(invocation) = &mut self.invocation {
            invocation.migrated = true;
        }
    }

    /// What the invocation did; lets go of the key's state.
    pub fn end(&mut self) -> Effects {
        self.log().end();
        if let Some(http) = &mut self.http {
            http.end();
        }
        let state_version = self.settings.state_version;
        self.invocation
            .take()
            .map(|invocation| invocation.finish(state_version))
            .unwrap_or_default()
    }

    /// Events that the invocation has emitted so far.
    #[cfg(test)]
    pub fn emitted(&self) -> u64 {
        let invocation = self.invocation.as_ref();
        invocation.map_or(0, |invocation| invocation.effects.emits.len() as u64)
    }

    pub fn last_words(&self) -> Option<String> {
        self.log().last_words()
    }

    fn log(&self) -> MutexGuard<'_, GuestLog> {
        // A log that a panic left in mid-line is still a log.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn invocation(&mut self) -> wasmtime::Result<(&mut Invocation, &ProgramSettings)> {
        match &mut self.invocation {
            Some(invocation) => Ok((invocation, &self.settings)),
            None => Err(wasmtime::format_err!(
                "cells, timers and emits can only be used inside handle, not while the component is initialised"
            )),
        }
    }
}

impl Invocation {
    /// What was done, and of which version the key's cells are now.
    fn finish(mut self, state_version: u32) -> Effects {
        self.effects.shared = self.shared.finish();
        let before = self.state.version();
        let written = (self.migrated || !self.effects.cells.is_empty()) && self.cells > 0;
        if written && before != state_version {
            let version = Bytes::from(state_version.to_string());
            self.effects.cells.insert(VERSION_CELL.into(), Some(version));
        } else if self.cells == 0 && self.state.cells.contains_key(VERSION_CELL) {
            self.effects.cells.insert(VERSION_CELL.into(), None);
        }
        self.effects
    }

    /// The cell as it is now.
    fn cell(&self, cell: &str) -> Option<Vec<u8>> {
        if is_hidden(cell) {
            return None;
        }
        let value = match self.effects.cells.get(cell) {
            Some(written) => written.as_ref(),
            None => self.state.cells.get(cell),
        };
        value.map(|value| value.to_vec())
    }

    /// Whether the key has this cell now.
    fn has_cell(&self, cell: &str) -> bool {
        match self.effects.cells.get(cell) {
            Some(written) => written.is_some(),
            None => self.state.cells.contains_key(cell),
        }
    }

    fn has_timer(&self, name: &str) -> bool {
        match self.effects.timers.get(name) {
            Some(changed) => changed.is_some(),
            None => self.state.timers.contains_key(name),
        }
    }

    fn write_cell(
        &mut self,
        cell: String,
        value: Option<Bytes>,
        settings: &ProgramSettings,
    ) -> wasmtime::Result<()> {
        let name_bytes = cell.len();
        let size = |value: &Option<Bytes>| name_bytes + value.as_ref().map_or(0, Bytes::len);
        self.cells -= usize::from(self.has_cell(&cell));
        self.cells += usize::from(value.is_some());
        if value.is_some() {
            check::cells(&cell, self.cells)?;
        }
        self.tally.cell_bytes += size(&value);
        if let Some(replaced) = self.effects.cells.insert(cell.into(), value) {
            self.tally.cell_bytes -= size(&replaced);
        }
        self.check_totals(settings)
    }

    fn check_totals(&self, settings: &ProgramSettings) -> wasmtime::Result<()> {
        let tally = Tally {
            // Each is a message of the batch.
            messages: self.tally.messages + self.shared.len(),
            ..self.tally
        };
        Ok(tally.check(settings.limits.effects_bytes, settings.max_payload)?)
    }
}

impl wit::types::Host for Host {}

impl wit::state::Host for Host {
    fn get(&mut self, cell: String) -> wasmtime::Result<Option<Vec<u8>>> {
        let (invocation, _) = self.invocation()?;
        Ok(invocation.cell(&cell))
    }

    fn get_many(&mut self, cells: Vec<String>) -> wasmtime::Result<Vec<Option<Vec<u8>>>> {
        let (invocation, _) = self.invocation()?;
        Ok(cells.iter().map(|cell| invocation.cell(cell)).collect())
    }

    fn set(&mut self, cell: String, value: Vec<u8>) -> wasmtime::Result<()> {
        let (invocation, settings) = self.invocation()?;
        check::name("cell", &cell)?;
        check::value("cell", &cell, value.len(), settings.max_payload)?;
        invocation.write_cell(cell, Some(value.into()), settings)
    }

    fn delete(&mut self, cell: String) -> wasmtime::Result<()> {
        let (invocation, settings) = self.invocation()?;
        check::name("cell", &cell)?;
        if invocation.state.cells.contains_key(cell.as_str()) {
            return invocation.write_cell(cell, None, settings);
        }
        // Never committed: taking back what this call wrote is all there is to do.
        if let Some(Some(written)) = invocation.effects.cells.remove(cell.as_str()) {
            invocation.tally.cell_bytes -= cell.len() + written.len();
            invocation.cells -= 1;
        }
        Ok(())
    }

    fn cells(&mut self, prefix: String) -> wasmtime::Result<Vec<String>> {
        let (invocation, _) = self.invocation()?;
        let state = &invocation.state.cells;
        let written = &invocation.effects.cells;
        let kept = from(state, &prefix).filter(|name| !is_hidden(name) && !written.contains_key(*name));
        let added = from(written, &prefix).filter(|name| matches!(written.get(*name), Some(Some(_))));
        let mut names: Vec<String> = kept.chain(added).map(|name| (**name).to_owned()).collect();
        names.sort_unstable();
        Ok(names)
    }
}

/// The names in `map` that begin with `prefix`.
fn from<'a, V>(
    map: &'a std::collections::BTreeMap<Box<str>, V>,
    prefix: &'a str,
) -> impl Iterator<Item = &'a Box<str>> {
    use std::ops::Bound::{Included, Unbounded};
    map.range::<str, _>((Included(prefix), Unbounded))
        .map(|(name, _)| name)
        .take_while(move |name| name.starts_with(prefix))
}

impl wit::output::Host for Host {
    fn emit(
        &mut self,
        subject: String,
        headers: Vec<wit::types::HeaderResult>,
        data: Vec<u8>,
    ) -> wasmtime::Result<()> {
        let (invocation, settings) = self.invocation()?;
        check::subject(&subject)?;
        let stream = settings.outbox_of(&subject);
        if stream.is_none() {
            check::allowed(&subject, &settings.emit, &settings.ledger_subjects)?;
        }
        let headers: Headers = headers.into_iter().map(|h| (h.name, h.value)).collect();
        let mut header_bytes = check::headers(&subject, &headers)?;
        if stream.is_some() {
            header_bytes += OUTBOX_BYTES;
            check::header_bytes(&subject, header_bytes)?;
        }
        check::message(&subject, header_bytes, data.len(), settings.max_payload)?;
        invocation.tally.messages += 1;
        invocation.tally.other_bytes += subject.len() + header_bytes + data.len();
        invocation.check_totals(settings)?;
        invocation.effects.emits.push(Emit {
            subject,
            headers,
            data: data.into(),
            stream,
        });
        Ok(())
    }
}

impl wit::timers::Host for Host {
    fn set(&mut self, name: String, at: u64, data: Vec<u8>) -> wasmtime::Result<()> {
        let (invocation, settings) = self.invocation()?;
        check::name("timer", &name)?;
        check::due(&name, at)?;
        check::value("timer", &name, data.len(), settings.max_payload)?;
        if !invocation.has_timer(&name) {
            invocation.timers += 1;
            check::timers(&name, invocation.timers)?;
        }
        let name_bytes = name.len();
        invocation.tally.other_bytes += name_bytes + data.len();
        let set = TimerSet {
            due: at,
            data: data.into(),
        };
        match invocation.effects.timers.insert(name.into(), Some(set)) {
            Some(replaced) => {
                invocation.tally.other_bytes -= name_bytes + replaced.map_or(0, |timer| timer.data.len());
            }
            None => invocation.tally.messages += 1,
        }
        invocation.check_totals(settings)
    }

    fn due(&mut self, name: String) -> wasmtime::Result<Option<u64>> {
        let (invocation, _) = self.invocation()?;
        Ok(match invocation.effects.timers.get(name.as_str()) {
            Some(changed) => changed.as_ref().map(|set| set.due),
            None => invocation.state.timers.get(name.as_str()).map(|live| live.due),
        })
    }

    fn cancel(&mut self, name: String) -> wasmtime::Result<()> {
        let (invocation, settings) = self.invocation()?;
        check::name("timer", &name)?;
        if !invocation.has_timer(&name) {
            return Ok(());
        }
        invocation.timers -= 1;
        let name_bytes = name.len();
        if let Some(changed) = invocation.effects.timers.remove(name.as_str()) {
            invocation.tally.messages -= 1;
            invocation.tally.other_bytes -= name_bytes + changed.map_or(0, |timer| timer.data.len());
        }
        if invocation.state.timers.contains_key(name.as_str()) {
            invocation.tally.messages += 1;
            invocation.tally.other_bytes += name_bytes;
            invocation.effects.timers.insert(name.into(), None);
        }
        invocation.check_totals(settings)
    }
}

impl Host {
    /// What the invocation has shared so far, and how to read more.
    fn sharing(&mut self) -> wasmtime::Result<(&mut Invocation, &dyn Access, &ProgramSettings)> {
        let Some(access) = &self.shared else {
            return Err(wasmtime::format_err!("there is nothing shared here"));
        };
        match &mut self.invocation {
            Some(invocation) => Ok((invocation, &**access, &self.settings)),
            None => Err(wasmtime::format_err!(
                "shared cells and locks can only be used inside handle, not while the component is initialised"
            )),
        }
    }
}

impl Invocation {
    /// After something shared was used, and `bytes` of it written.
    fn count_shared(&mut self, bytes: usize, settings: &ProgramSettings) -> wasmtime::Result<()> {
        self.tally.other_bytes += bytes;
        check::shared(self.shared.len())?;
        self.check_totals(settings)
    }
}

impl wit::shared::Host for Host {
    fn get(&mut self, name: String) -> wasmtime::Result<Option<Vec<u8>>> {
        let (invocation, access, settings) = self.sharing()?;
        check::name("shared cell", &name)?;
        let value = invocation.shared.get(access, &name)?;
        invocation.count_shared(0, settings)?;
        Ok(value)
    }

    fn set(&mut self, name: String, value: Vec<u8>) -> wasmtime::Result<()> {
        let (invocation, access, settings) = self.sharing()?;
        check::name("shared cell", &name)?;
        check::value("shared cell", &name, value.len(), settings.max_payload)?;
        let bytes = name.len() + value.len();
        invocation.shared.write(access, &name, Some(value.into()))?;
        invocation.count_shared(bytes, settings)
    }

    fn delete(&mut self, name: String) -> wasmtime::Result<()> {
        let (invocation, access, settings) = self.sharing()?;
        check::name("shared cell", &name)?;
        invocation.shared.write(access, &name, None)?;
        invocation.count_shared(0, settings)
    }

    fn try_lock(&mut self, name: String, ttl_ms: u64) -> wasmtime::Result<Option<u64>> {
        let (invocation, access, settings) = self.sharing()?;
        check::name("lock", &name)?;
        let token = invocation.shared.try_lock(access, &name, ttl_ms)?;
        invocation.count_shared(0, settings)?;
        Ok(token.ok())
    }

    fn lock(&mut self, name: String, ttl_ms: u64) -> wasmtime::Result<u64> {
        let (invocation, access, settings) = self.sharing()?;
        check::name("lock", &name)?;
        let token = invocation.shared.try_lock(access, &name, ttl_ms)?;
        invocation.count_shared(0, settings)?;
        Ok(token.map_err(|until| Locked { name, until })?)
    }

    fn unlock(&mut self, name: String) -> wasmtime::Result<()> {
        let (invocation, access, settings) = self.sharing()?;
        check::name("lock", &name)?;
        invocation.shared.unlock(access, &name)?;
        invocation.count_shared(0, settings)
    }
}

impl wit::config::Host for Host {
    fn get(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        Ok(self.settings.config.get(&name).cloned())
    }
}

impl wit::log::Host for Host {
    fn write(&mut self, level: wit::log::Level, message: String) -> wasmtime::Result<()> {
        let level = match level {
            wit::log::Level::Trace => Level::TRACE,
            wit::log::Level::Debug => Level::DEBUG,
            wit::log::Level::Info => Level::INFO,
            wit::log::Level::Warn => Level::WARN,
            wit::log::Level::Error => Level::ERROR,
        };
        Ok(self.log().line(level, message)?)
    }
}
