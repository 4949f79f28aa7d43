//! What guests say: lines of their `log` import, of stdout and of stderr, passed
//! to `tracing` under the target [`TARGET`].

use tracing::Level;

use super::fault::clip;
use crate::effects::check::Violation;
use crate::effects::dead_letter::TEXT_BYTES_MAX;

/// `tracing` target of all that guests say.
pub const TARGET: &str = "weir::guest";

/// What a line counts for beside its text, so that empty ones are bounded too.
const LINE_BYTES: usize = 16;

/// What an SDK has the runtime below it say where that writes a report of its own, less
/// readable, after the error that the SDK has logged: then the logged one counts.
const LOGGED_ABOVE: &str = "the error logged above";

/// Log of one instance.
#[derive(Debug)]
pub(super) struct GuestLog {
    handler: String,
    limit_bytes: usize,
    /// Id of the event being handled; empty while the instance is made.
    event: String,
    used_bytes: usize,
    /// Last line that the guest logged as an error.
    last_error: Option<String>,
    /// Whether anything came on stderr since.
    stderr_since: bool,
    /// Last bytes of stderr, where interpreters write their tracebacks.
    stderr_tail: String,
    /// Output without its line end so far.
    partial: [String; 2],
}

/// Which stream of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout = 0,
    Stderr = 1,
}

impl GuestLog {
    pub fn new(handler: String, limit_bytes: usize) -> Self {
        GuestLog {
            handler,
            limit_bytes,
            event: String::new(),
            used_bytes: 0,
            last_error: None,
            stderr_since: false,
            stderr_tail: String::new(),
            partial: Default::default(),
        }
    }

    /// A new invocation: its budget is whole and it has said nothing.
    pub fn begin(&mut self, event: String) {
        self.event = event;
        self.used_bytes = 0;
        self.last_error = None;
        self.stderr_tail.clear();
    }

    /// Ends the invocation: passes on lines that were not ended.
    pub fn end(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let line = std::mem::take(&mut self.partial[stream as usize]);
            if !line.is_empty() {
                self.emit(stream.level(), &line);
            }
        }
    }

    /// What the guest last said of its trouble, if it did.
    pub fn last_words(&self) -> Option<String> {
        let stderr = self.stderr_tail.trim();
        match &self.last_error {
            Some(line) if !self.stderr_since || stderr.contains(LOGGED_ABOVE) => Some(line.clone()),
            _ => (!stderr.is_empty()).then(|| stderr.to_owned()),
        }
    }

    /// One line of the `log` import.
    pub fn line(&mut self, level: Level, message: String) -> Result<(), Violation> {
        self.charge(message.len() + LINE_BYTES)?;
        self.emit(level, &message);
        if level == Level::ERROR {
            self.last_error = Some(clip(message));
            self.stderr_since = false;
        }
        Ok(())
    }

    /// Bytes written to stdout or stderr; passed on line by line.
    pub fn output(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), Violation> {
        let text = String::from_utf8_lossy(bytes);
        let lines = text.matches('\n').count();
        self.charge(text.len() + lines * LINE_BYTES)?;
        if stream == Stream::Stderr {
            self.stderr_since = true;
            self.stderr_tail.push_str(&text);
            let excess = self.stderr_tail.len().saturating_sub(TEXT_BYTES_MAX);
            self.stderr_tail
                .drain(..self.stderr_tail.ceil_char_boundary(excess));
        }
        let mut rest = text.as_ref();
        while let Some((end, after)) = rest.split_once('\n') {
            let mut line = std::mem::take(&mut self.partial[stream as usize]);
            line.push_str(end);
            self.emit(stream.level(), &line);
            rest = after;
        }
        self.partial[stream as usize].push_str(rest);
        Ok(())
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Violation> {
        self.used_bytes = self.used_bytes.saturating_add(bytes);
        if self.used_bytes > self.limit_bytes {
            return Err(Violation::Log {
                max: self.limit_bytes,
            });
        }
        Ok(())
    }

    fn emit(&self, level: Level, message: &str) {
        // The level of a tracing event is part of its call site.
        macro_rules! pass {
            ($level:ident) => {
                tracing::event!(target: TARGET, Level::$level, handler = self.handler, event = self.event, "{message}")
            };
        }
        match level {
            Level::TRACE => pass!(TRACE),
            Level::DEBUG => pass!(DEBUG),
            Level::INFO => pass!(INFO),
            Level::WARN => pass!(WARN),
            Level::ERROR => pass!(ERROR),
        }
    }
}

impl Stream {
    fn level(self) -> Level {
        match self {
            Stream::Stdout => Level::INFO,
            Stream::Stderr => Level::WARN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_per_invocation_and_counts_empty_lines() {
        let mut log = GuestLog::new("h".into(), 100);
        log.begin("S:1".into());
        log.line(Level::INFO, "x".repeat(84)).unwrap();
        assert_eq!(
            log.line(Level::INFO, String::new()),
            Err(Violation::Log { max: 100 })
        );
        log.begin("S:2".into());
        log.line(Level::INFO, "x".into()).unwrap();
        assert!(log.output(Stream::Stdout, "\n".repeat(6).as_bytes()).is_err());
    }

    #[test]
    fn last_words_are_the_last_error_logged_or_the_end_of_stderr() {
        let mut log = GuestLog::new("h".into(), usize::MAX);
        log.begin("S:1".into());
        assert_eq!(log.last_words(), None);
        log.output(Stream::Stderr, "ü".repeat(TEXT_BYTES_MAX).as_bytes())
            .unwrap();
        log.output(Stream::Stderr, b"ValueError: no\n").unwrap();
        let words = log.last_words().unwrap();
        assert!(words.len() <= TEXT_BYTES_MAX && words.ends_with("ValueError: no"));
        log.line(Level::WARN, "only a warning".into()).unwrap();
        log.line(Level::ERROR, "panicked".into()).unwrap();
        assert_eq!(log.last_words().as_deref(), Some("panicked"));
        log.output(Stream::Stderr, b"panic: later\n").unwrap();
        assert!(log.last_words().unwrap().ends_with("panic: later"));
        log.line(Level::ERROR, "readable".into()).unwrap();
        log.output(Stream::Stderr, b"Exception(the error logged above)\n")
            .unwrap();
        assert_eq!(log.last_words().as_deref(), Some("readable"));
        log.begin("S:2".into());
        assert_eq!(log.last_words(), None);
    }

    #[test]
    fn output_is_cut_into_lines() {
        let mut log = GuestLog::new("h".into(), usize::MAX);
        log.output(Stream::Stdout, b"a\nb").unwrap();
        assert_eq!(log.partial[0], "b");
        log.end();
        assert_eq!(log.partial[0], "");
    }
}
