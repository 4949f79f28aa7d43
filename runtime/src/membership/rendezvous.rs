//! Rendezvous hashing: each partition belongs to the host that weighs most for it.
//! When a host comes or goes, only the partitions move that it gains or had.
//!
//! The hash is part of the contract between hosts of different versions: FNV-1a of
//! the names, mixed by the finalizer of SplitMix64.

/// A host's part of the weight.
pub fn hash(name: &str) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    name.bytes()
        .fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// How much a host weighs for a partition of a handler.
pub fn weight(host: u64, handler: u64, partition: u32) -> u64 {
    let step = u64::from(partition).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mix(host ^ mix(handler.wrapping_add(step)))
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner<'a>(hosts: &[&'a str], handler: &str, partition: u32) -> &'a str {
        hosts
            .iter()
            .max_by_key(|host| weight(hash(host), hash(handler), partition))
            .expect("a host")
    }

    #[test]
    fn shares_are_even_and_only_what_must_moves() {
        const PARTITIONS: u32 = 10_000;
        let hosts = ["a-1", "a-2", "a-3", "b-1"];
        let mut moved = 0;
        let mut of_each = [0; 4];
        for partition in 0..PARTITIONS {
            let before = owner(&hosts[..3], "orders", partition);
            let after = owner(&hosts, "orders", partition);
            of_each[hosts.iter().position(|host| *host == after).expect("one of them")] += 1;
            if before != after {
                assert_eq!(after, "b-1", "a newcomer gains, and nobody else does");
                moved += 1;
            }
        }
        assert_eq!(moved, of_each[3]);
        for share in of_each {
            assert!((2_300..=2_700).contains(&share), "{of_each:?}");
        }
    }

    /// Hosts of different versions must agree.
    #[test]
    fn the_hash_never_changes() {
        assert_eq!(hash("host"), 0x4077_f8cc_7eaf_4d6f);
        assert_eq!(weight(1, 2, 3), 0x9df8_2b5e_ced9_e621);
    }
}
