//! `examples/shop`: hundreds of orders, of which many are to fail in one way or another, while hosts,
//! servers and the sink are killed. At the end the books have to be right.
//!
//! `cargo xtask shop --orders N --seed S` runs it with thousands.
//!
//! | file | has |
//! | --- | --- |
//! | `orders.rs` | what customers want, by the seed |
//! | `world.rs` | servers, hosts and the sink, and what is done to them |
//! | `books.rs` | all that is written down, read back |
//! | `checks.rs` | what has to hold of that |

mod books;
mod checks;
mod orders;
mod world;

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use weir_tests::bus::Bus;
use weir_tests::{PATIENCE, seed, until};

use books::Books;
use checks::CHECKS;
use orders::Generated;
use world::{FLEET, HANDLERS, LEDGER, World};

/// Orders of a run where nobody says.
const ORDERS: usize = 300;

/// Orders that are placed and not at their end: as many as customers would wait for. More of them would wait for
/// each other's vans until their sagas give up.
const OPEN_MAX: u64 = 50;

/// Orders that are placed at once.
const AT_ONCE: usize = 10;

/// Events of orders between two faults.
const EVENTS_PER_FAULT: std::ops::Range<u64> = 50..200;

/// How long what is left may take, after the last fault. Compensations have 20 attempts.
const SETTLE: Duration = Duration::from_secs(180);

fn count() -> Result<usize> {
    match std::env::var("WEIR_SHOP_ORDERS") {
        Ok(text) => text.parse().context("WEIR_SHOP_ORDERS is a number"),
        Err(_) => Ok(ORDERS),
    }
}

/// Events of orders that there are: two of each that is at its end.
async fn order_events(bus: &Bus) -> Result<u64> {
    bus.count(LEDGER, "shop.order.*").await
}

/// Customers: the next ones order once enough of those before have what they ordered, or do not.
async fn place(bus: &Bus, generated: &Generated) -> Result<()> {
    let total = generated.orders.len() as u64;
    let half = generated.orders.len() / AT_ONCE / 2;
    let mut placed = 0;
    bus.publish_all(&generated.delivered(0)).await?;
    for (number, messages) in generated.placed(AT_ONCE).enumerate() {
        if number == half {
            bus.publish_all(&generated.delivered(1)).await?;
        }
        bus.publish_all(&messages).await?;
        placed = total.min(placed + AT_ONCE as u64);
        until("orders come to their end", SETTLE, async || {
            let open = (2 * placed).saturating_sub(order_events(bus).await?);
            ensure!(open <= OPEN_MAX, "{open} are open");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Something happens to hosts, servers or the sink, again and again until it is over.
async fn disturb(world: &mut World, seed: u64, over: &Cell<bool>) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    while !over.get() {
        let events = async || order_events(&world.bus).await;
        let before = until("the server is back", PATIENCE, events).await?;
        let more = random.random_range(EVENTS_PER_FAULT);
        until("orders go on", SETTLE, async || {
            let events = order_events(&world.bus).await?;
            ensure!(events >= before + more || over.get(), "{events} events");
            Ok(())
        })
        .await?;
        world.something_happens(&mut random).await?;
    }
    Ok(())
}

async fn finish(world: &mut World, orders: usize) -> Result<()> {
    world.replayed().await?;
    at_rest(world, orders).await
}

/// Waits until nothing is left to do anywhere.
async fn at_rest(world: &World, orders: usize) -> Result<()> {
    let bus = &world.bus;
    until("every order has ended", SETTLE, async || {
        let events = order_events(bus).await?;
        ensure!(events >= 2 * orders as u64, "{events} events of {orders} orders");
        Ok(())
    })
    .await?;
    for handler in HANDLERS {
        world.weir.caught_up(handler).await?;
    }
    until("the other team has everything", PATIENCE, async || {
        let left = bus.count(LEDGER, "$WEIR.*.o.>").await?;
        ensure!(left == 0, "{left} entries of the outbox are left");
        let (inside, outside) = (
            bus.count(LEDGER, "shipping.van.*").await?,
            bus.messages(FLEET).await?,
        );
        ensure!(outside >= inside, "{outside} of {inside}");
        Ok(())
    })
    .await?;
    let sql = world.sql().await?;
    let all = i64::try_from(orders)?;
    until("the sink has applied everything", PATIENCE, async || {
        let query = "select count(*) from orders where status <> 'placed'";
        let ended: i64 = sql.query_one(query, &[]).await?.get(0);
        ensure!(ended >= all, "{ended} of {all}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_books_are_right_whatever_happens() -> Result<()> {
    let (seed, orders) = (seed(), count()?);
    let generated = Generated::new(seed, orders);
    let mut world = World::start().await?;
    let begin = Instant::now();
    let over = Cell::new(false);
    let bus = world.bus.clone();
    let placing = async {
        place(&bus, &generated).await?;
        over.set(true);
        Ok(())
    };
    let ran = match tokio::try_join!(placing, disturb(&mut world, seed, &over)) {
        Ok(_) => finish(&mut world, orders).await,
        Err(error) => Err(error),
    };
    if ran.is_err() {
        println!("{}", world.describe().await);
    }
    ran?;
    let took = begin.elapsed();

    let books = Books::read(&world, &generated).await?;
    println!(
        "\n{orders} orders in {:.0} s; {:?}\n",
        took.as_secs_f64(),
        world.done
    );
    for (state, count) in books.final_states() {
        println!("{count:>7}  {state}");
    }
    println!();
    let mut wrong = 0;
    for check in &CHECKS {
        match (check.holds)(&books) {
            Ok(figures) => println!("  holds  {}: {figures}", check.says),
            Err(error) => {
                wrong += 1;
                println!("  WRONG  {}: {error:#}", check.says);
            }
        }
    }
    ensure!(wrong == 0, "{wrong} of the books are wrong; WEIR_SEED={seed}");
    // In fewer orders there may be nothing to forge, such as a refund.
    for check in CHECKS.iter().filter(|_| orders >= ORDERS) {
        let mut forged = books.clone();
        (check.forge)(&mut forged);
        ensure!(
            (check.holds)(&forged).is_err(),
            "not found where it is not so: {}",
            check.says
        );
    }
    Ok(())
}
