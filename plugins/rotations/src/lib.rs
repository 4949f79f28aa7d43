//! Numbers the events of each key: 1, 2, 3, … The example that every guest
//! language has, byte for byte the same, and so also what the tests of
//! exactly-once and of order are made of: a lost, doubled or reordered event
//! shows in the numbers.

use serde::Serialize;
use weir_guest::prelude::*;

#[derive(Serialize)]
struct Rotation<'a> {
    key: &'a str,
    n: u64,
    of: &'a str,
}

#[handler]
fn rotations(event: Event) -> Result {
    if let Some(order) = event.header("Weir-Test") {
        misbehave(order)?;
    }
    let n = state::cell::<u64>("n").update(|n| *n += 1)?;
    let rotation = Rotation {
        key: event.key(),
        n,
        of: event.id(),
    };
    output::emit(&format!("rotations.{}", subject_token(event.key())), &rotation)
}

/// What a test asks for with the header `Weir-Test`.
fn misbehave(order: &str) -> Result {
    match order {
        "retry" => Err(Error::retry("asked to retry")),
        "reject" => Err(Error::reject("asked to reject")),
        "trap" => panic!("asked to trap"),
        "spin" => loop {
            std::hint::spin_loop();
        },
        "hoard" => {
            let mut hoard = Vec::new();
            loop {
                hoard.push(std::hint::black_box(vec![1u8; 1 << 20]));
            }
        }
        _ => Ok(()),
    }
}
