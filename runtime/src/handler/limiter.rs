//! Bounds the memory of one instance, and remembers when it had to refuse.

use wasmtime::ResourceLimiter;

use super::engine::{CORE_INSTANCES_MAX, MEMORIES_MAX, TABLES_MAX};

/// Entries of one table: functions that a component calls indirectly. A Python
/// interpreter has about 15,000.
pub(super) const TABLE_ELEMENTS_MAX: usize = 100_000;

/// The memory that one instance has and may have, all its memories together.
///
/// A guest that is refused memory usually traps on an `unreachable` of its
/// allocator, which says nothing: `refused` is what turns that trap into
/// [`Fault::Memory`](super::Fault::Memory).
#[derive(Debug)]
pub(super) struct Limiter {
    limit_bytes: usize,
    used_bytes: usize,
    refused: bool,
}

impl Limiter {
    pub fn new(limit_mib: u32) -> Self {
        Limiter {
            limit_bytes: (limit_mib as usize).saturating_mul(1024 * 1024),
            used_bytes: 0,
            refused: false,
        }
    }

    pub fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// Whether memory was refused since the last call of this.
    pub fn take_refused(&mut self) -> bool {
        std::mem::take(&mut self.refused)
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false); // the module's own bound, not ours
        }
        let used = self.used_bytes.saturating_add(desired.saturating_sub(current));
        if used > self.limit_bytes {
            self.refused = true;
            return Ok(false);
        }
        self.used_bytes = used;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX && maximum.is_none_or(|maximum| desired <= maximum))
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memories_count_and_a_refusal_is_remembered_once() {
        const MIB: usize = 1024 * 1024;
        let mut limiter = Limiter::new(2);
        assert!(limiter.memory_growing(0, MIB, None).unwrap());
        assert!(limiter.memory_growing(0, MIB, None).unwrap());
        assert!(!limiter.take_refused());
        assert!(!limiter.memory_growing(MIB, MIB + 1, None).unwrap());
        assert!(limiter.take_refused());
        assert!(!limiter.take_refused());
        assert_eq!(limiter.used_bytes(), 2 * MIB);
        // The module's own maximum is not our refusal.
        assert!(!limiter.memory_growing(MIB, 3 * MIB, Some(2 * MIB)).unwrap());
        assert!(!limiter.take_refused());
        assert!(!limiter.table_growing(0, TABLE_ELEMENTS_MAX + 1, None).unwrap());
    }
}
