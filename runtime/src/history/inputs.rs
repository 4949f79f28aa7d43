//! The events of one key, from all sources, one at a time in the order in which its partition took them.

use std::collections::{BTreeSet, VecDeque};

use anyhow::{Context as _, bail};

use super::point::Bound;
use super::turns::Turns;
use crate::log::{Log, Reader, Stored};
use crate::source::decode::{Decoded, Decoder, Queued};

/// Header of a message that goes by itself after a while (ADR-43).
const TTL_HEADER: &str = "Nats-TTL";

/// One source to read, from where the handler began.
pub struct Input {
    decoder: Decoder,
    filters: Vec<String>,
    /// When the stream was created, in Unix nanoseconds.
    created: u64,
    /// The next sequence to read.
    from: u64,
    reader: Option<Box<dyn Reader>>,
    /// Events of the key that were read and are not handed out.
    waiting: VecDeque<(u32, Queued)>,
    /// Whether all up to the bound was read.
    done: bool,
}

impl Input {
    pub fn new(decoder: Decoder, filters: Vec<String>, created: u64, from: u64) -> Input {
        Input {
            decoder,
            filters,
            created,
            from,
            reader: None,
            waiting: VecDeque::new(),
            done: false,
        }
    }

    /// Opens a reader, and makes sure that the stream is the same as before (PROTOCOL rule 6).
    async fn open(&mut self, log: &dyn Log) -> anyhow::Result<u64> {
        let stream = &*self.decoder.stream;
        let reader = log.read(stream, &self.filters, self.from).await?;
        if log.stream(stream).await?.created != self.created {
            bail!("stream {stream} was deleted and created again at this moment");
        }
        let found = reader.found();
        // Without any, it would wait for what is yet to come.
        self.done = found == 0;
        self.reader = Some(reader);
        Ok(found)
    }

    /// Reads what the server has for us next, into `into`.
    async fn read(&mut self, log: &dyn Log, into: &mut Vec<Stored>) -> anyhow::Result<()> {
        let mut reopened = false;
        loop {
            if self.reader.is_none() {
                self.open(log).await?;
                reopened = true;
            }
            let Some(reader) = self.reader.as_mut().filter(|_| !self.done) else {
                return Ok(());
            };
            let read = reader.next(into).await;
            // Whatever came before an error is good.
            self.from = into.last().map_or(self.from, |last| last.sequence + 1);
            match read {
                Ok(unread) => {
                    self.done = unread == 0;
                    return Ok(());
                }
                // A reader that nobody called for a while is forgotten by the server.
                Err(_) if !reopened => self.reader = None,
                Err(error) => return Err(error).context(format!("reading stream {}", self.decoder.stream)),
            }
            if !into.is_empty() {
                return Ok(());
            }
        }
    }
}

/// What is read of all sources.
pub struct Inputs<'a> {
    log: &'a dyn Log,
    key: &'a str,
    bound: Bound,
    turns: Turns,
    inputs: Vec<Input>,
    /// Messages read, and those that there were at first.
    read: u64,
    found: u64,
    progress: &'a mut dyn FnMut(u64, u64),
    /// Streams some of whose messages go by themselves.
    pub expiring: BTreeSet<String>,
    /// Events that were handed out while another source had one of the same turn: by their times.
    pub tied: u64,
}

impl<'a> Inputs<'a> {
    /// Opens all sources. `turns` says the order between them, and is asked where that matters; with `ours`,
    /// the event that is the bound has its place there, too.
    ///
    /// # Errors
    /// Of the log, or of `turns`.
    pub async fn open(
        log: &'a dyn Log,
        key: &'a str,
        (mut bound, ours): (Bound, bool),
        mut inputs: Vec<Input>,
        turns: impl Future<Output = anyhow::Result<Turns>>,
        progress: &'a mut dyn FnMut(u64, u64),
    ) -> anyhow::Result<Inputs<'a>> {
        let mut found = 0;
        for input in &mut inputs {
            found += input.open(log).await?;
        }
        inputs.retain(|input| !input.done);
        let place = bound.event.filter(|_| ours);
        let sources = inputs.iter().map(|input| usize::from(input.decoder.source));
        let sources: BTreeSet<usize> = sources.chain(place.map(|(source, _)| source)).collect();
        let turns = match sources.len() {
            0 | 1 => Turns::default(),
            _ => turns.await?,
        };
        bound.turn = place.map(|(source, sequence)| turns.of(source, sequence));
        Ok(Inputs {
            log,
            key,
            bound,
            turns,
            inputs,
            read: 0,
            found,
            progress,
            expiring: BTreeSet::new(),
            tied: 0,
        })
    }

    /// The next event, and its partition.
    ///
    /// # Errors
    /// Of the log.
    pub async fn next(&mut self) -> anyhow::Result<Option<(u32, Queued)>> {
        for index in 0..self.inputs.len() {
            while self.inputs[index].waiting.is_empty() && !self.inputs[index].done {
                self.fill(index).await?;
            }
        }
        let place = |input: &Input| {
            let (_, queued) = input.waiting.front()?;
            let source = usize::from(queued.event.source);
            let turn = self.turns.of(source, queued.event.offset);
            Some((turn, queued.stored, source))
        };
        let places: Vec<_> = self.inputs.iter().map(place).collect();
        let Some(first) = places.iter().flatten().min().copied() else {
            return Ok(None);
        };
        let same_turn = places.iter().flatten().filter(|(turn, ..)| *turn == first.0);
        self.tied += u64::from(same_turn.count() > 1);
        let input = places.iter().position(|place| *place == Some(first));
        Ok(input.and_then(|input| self.inputs[input].waiting.pop_front()))
    }

    async fn fill(&mut self, index: usize) -> anyhow::Result<()> {
        let input = &mut self.inputs[index];
        let source = usize::from(input.decoder.source);
        let mut messages = Vec::new();
        input.read(self.log, &mut messages).await?;
        for stored in messages {
            self.read += 1;
            let turn = self.turns.of(source, stored.sequence);
            if !self.bound.takes(source, &stored, turn) {
                input.done = true;
                input.reader = None;
                break;
            }
            if stored.header(TTL_HEADER).is_some() && !self.expiring.contains(&*input.decoder.stream) {
                self.expiring.insert(input.decoder.stream.to_string());
            }
            if let Decoded::Event(partition, queued) = input.decoder.decode(stored)
                && *queued.event.key == *self.key
            {
                input.waiting.push_back((partition, queued));
            }
        }
        (self.progress)(self.read, self.found);
        Ok(())
    }
}
