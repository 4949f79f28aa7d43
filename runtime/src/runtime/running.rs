//! A handler at work on this host, in one generation: its feeds and its lanes.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::handlers::Parts;
use super::roster::Shown;
use crate::dispatch::context::{HandlerContext, LaneStatus, Version, source_names};
use crate::dispatch::lane::Lane;
use crate::dispatch::ownership::Ownership;
use crate::dispatch::quiet::Beside;
use crate::dispatch::start::Starts;
use crate::metrics::HandlerMetrics;
use crate::model::pattern;
use crate::model::subjects::HandlerNames;
use crate::shared::reader::{Clock, Reader};
use crate::source::decode::Decoder;
use crate::source::feed::{CHUNKS_MAX, Chunk, Feed, FeedHandle};
use crate::source::progress::SharedProgress;

/// A handler at work, in one generation. Dropped, it has crashed.
pub struct Running {
    versions: watch::Sender<Arc<HandlerContext>>,
    progress: Vec<Vec<SharedProgress>>,
    stop: watch::Sender<bool>,
    lanes: JoinSet<()>,
}

impl Running {
    /// Starts the feeds and lanes.
    pub fn start(parts: &Parts, version: Version, generation: u64, beside: Option<Beside>) -> Running {
        let manifest = version.manifest.clone();
        let names = HandlerNames::new(&parts.ledger.name, &manifest.name, generation);
        let partitions = manifest.partitions;
        let streams: Vec<&str> = source_names(&manifest).collect();
        // A host holds a partition of each generation; who owns them is one question.
        let told_as = match beside {
            Some(_) => format!("{}#rebuild", manifest.name),
            None => manifest.name.clone(),
        };
        let context = Arc::new(HandlerContext {
            names: names.clone(),
            beside,
            host: parts.host.clone(),
            log: parts.log.clone(),
            committer: parts.committer.clone(),
            executors: parts.executors.clone(),
            starts: Arc::new(Starts::new(parts.log.clone(), names.clone())),
            shared: Arc::new(Reader::new(parts.log.clone(), names, Clock::System)),
            freed: parts.freed.clone(),
            metrics: HandlerMetrics::new(&told_as, partitions, &streams),
            counters: Arc::default(),
            budget: parts.budget.clone(),
            ledger_created: parts.ledger.created,
            event_ttl_s: parts.event_ttl_s,
            lanes: (0..partitions).map(|_| LaneStatus::default()).collect(),
            version,
        });
        watch_locks(&context);
        let (stop, stopped) = watch::channel(false);
        let (versions, version) = watch::channel(context.clone());

        let (senders, receivers): (Vec<_>, Vec<_>) = (0..partitions)
            .map(|_| mpsc::channel(CHUNKS_MAX * streams.len()))
            .unzip();
        let feeds = feeds(&context, &senders);
        let mut lanes = JoinSet::new();
        for (partition, chunks) in (0..).zip(receivers) {
            let ownership = Ownership::new(
                parts.view.clone(),
                parts.holdings.clone(),
                &parts.host,
                &manifest.name,
                &told_as,
                partition,
            );
            let lane = Lane::new(
                version.clone(),
                partition,
                chunks,
                feeds.iter().map(|feeds| feeds.of(partition)).collect(),
                stopped.clone(),
                ownership,
            );
            lanes.spawn(lane.run());
        }
        Running {
            versions,
            progress: feeds.into_iter().map(SourceFeeds::progress).collect(),
            stop,
            lanes,
        }
    }

    pub fn is_of(&self, generation: u64) -> bool {
        self.versions.borrow().names.generation == generation
    }

    /// Whether the lanes can go over to a version as they are.
    pub fn takes(&self, version: &Version, generation: u64) -> bool {
        let context = self.versions.borrow();
        let reads = |version: &Version| {
            let sources = version.manifest.sources.iter();
            sources
                .map(|source| (source.stream.clone(), source.subjects.clone()))
                .collect::<Vec<_>>()
        };
        let id_of = |version: &Version| {
            let dedupe = version.manifest.dedupe.as_ref();
            dedupe.map(|dedupe| dedupe.from.clone())
        };
        self.is_of(generation)
            && context.manifest.partitions == version.manifest.partitions
            && context.manifest.key == version.manifest.key
            && context.manifest.partition_token == version.manifest.partition_token
            && id_of(&context) == id_of(version)
            && reads(&context) == reads(version)
    }

    pub fn switch(&self, version: Version) {
        self.versions.send_modify(|context| {
            *context = Arc::new(HandlerContext {
                version,
                ..(**context).clone()
            });
        });
        watch_locks(&self.versions.borrow());
    }

    pub fn shown(&self) -> Shown {
        Shown {
            context: self.versions.subscribe(),
            progress: self.progress.clone(),
        }
    }

    /// Finishes what is under way.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.lanes.join_next().await.is_some() {}
    }
}

/// The feeds of one source.
enum SourceFeeds {
    /// One for all partitions.
    Whole(FeedHandle),
    /// One for each: its number is in the subject.
    Each(Vec<FeedHandle>),
}

impl SourceFeeds {
    fn of(&self, partition: u32) -> FeedHandle {
        match self {
            SourceFeeds::Whole(feed) => feed.clone(),
            SourceFeeds::Each(feeds) => feeds[partition as usize].clone(),
        }
    }

    fn progress(self) -> Vec<SharedProgress> {
        match self {
            SourceFeeds::Whole(feed) => vec![feed.progress],
            SourceFeeds::Each(feeds) => feeds.into_iter().map(|feed| feed.progress).collect(),
        }
    }
}

/// The feeds of all sources, the handler's own messages in the ledger last.
fn feeds(context: &HandlerContext, lanes: &[mpsc::Sender<Chunk>]) -> Vec<SourceFeeds> {
    let own = vec![context.names.fired_all(), context.names.redriven_all()];
    let subjects = context.manifest.sources.iter().map(|source| &source.subjects);
    let start = |subjects, decoder, lanes: BTreeMap<u32, _>| {
        Feed::start(context.log.clone(), subjects, decoder, lanes)
    };
    let feeds_of = |(decoder, subjects): (Decoder, &Vec<String>)| match decoder.partition_token {
        None => {
            let lanes = (0..).zip(lanes.iter().cloned()).collect();
            SourceFeeds::Whole(start(subjects.clone(), decoder, lanes))
        }
        Some(token) => {
            let each = (0..).zip(lanes).map(|(partition, lane)| {
                let subjects = subjects.iter();
                let number = partition.to_string();
                let subjects = subjects.flat_map(|subject| pattern::with_token(subject, token, &number));
                let lane = BTreeMap::from([(partition, lane.clone())]);
                start(subjects.collect(), decoder.clone(), lane)
            });
            SourceFeeds::Each(each.collect())
        }
    };
    let decoders = context.decoders().into_iter();
    decoders.zip(subjects.chain([&own])).map(feeds_of).collect()
}

/// Events of a handler that uses locks are told when one is free.
fn watch_locks(context: &HandlerContext) {
    if context.program.shares() {
        context.freed.watch(&context.log, &context.names.ledger);
    }
}
