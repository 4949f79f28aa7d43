use super::*;
use crate::testing::{self, Effects, EventBuilder, Host, given};

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Order {
    items: Vec<String>,
    paid: bool,
}

#[derive(Serialize, Deserialize)]
enum Command {
    Add(String),
    AddTwice(String),
    Pay,
    Nothing,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Happened {
    Added { item: String },
    Paid,
    Broken,
}

#[derive(Debug, PartialEq, Serialize)]
enum Refusal {
    Empty,
    AlreadyPaid,
}

impl Aggregate for Order {
    const NAME: &'static str = "shop.order";
    type Command = Command;
    type Event = Happened;
    type Rejection = Refusal;

    fn decide(&self, command: Command) -> Result<Vec<Happened>, Refusal> {
        let added = |item: &String| Happened::Added { item: item.clone() };
        match command {
            _ if self.paid => Err(Refusal::AlreadyPaid),
            Command::Add(item) if item == "bomb" => Ok(vec![added(&item), Happened::Broken]),
            Command::Add(item) => Ok(vec![added(&item)]),
            Command::AddTwice(item) => Ok(vec![added(&item), added(&item)]),
            Command::Pay if self.items.is_empty() => Err(Refusal::Empty),
            Command::Pay => Ok(vec![Happened::Paid]),
            Command::Nothing => Ok(Vec::new()),
        }
    }

    fn evolve(&mut self, event: &Happened) {
        match event {
            Happened::Added { item } => self.items.push(item.clone()),
            Happened::Paid => self.paid = true,
            Happened::Broken => panic!("evolve is broken"),
        }
    }
}

fn order(event: Event) -> Result {
    handle::<Order>(&event)
}

fn command(text: &str) -> EventBuilder {
    testing::event("orders.do").key("a.7").data(text)
}

/// Subject, headers and payload of what was emitted.
fn told(effects: &Effects) -> Vec<String> {
    let emitted = effects.emitted.iter();
    emitted
        .map(|one| {
            let headers: Vec<String> = one.headers.iter().map(|(n, v)| format!("{n}={v}")).collect();
            let data = String::from_utf8_lossy(&one.data);
            format!("{} {} {data}", one.subject, headers.join(" "))
        })
        .collect()
}

#[test]
fn events_state_and_version_go_together() {
    let mut host = Host::new();
    let effects = host.deliver(order, command(r#"{"AddTwice":"tea"}"#)).unwrap();
    assert_eq!(
        told(&effects),
        [
            r#"shop.order.a%2E7 Event-Type=Added Aggregate-Version=1 {"Added":{"item":"tea"}}"#,
            r#"shop.order.a%2E7 Event-Type=Added Aggregate-Version=2 {"Added":{"item":"tea"}}"#,
        ]
    );
    let effects = host.deliver(order, command(r#""Pay""#)).unwrap();
    assert_eq!(
        told(&effects),
        [r#"shop.order.a%2E7 Event-Type=Paid Aggregate-Version=3 "Paid""#]
    );
    assert_eq!(
        host.cell("a.7", CELL),
        Some(&br#"{"version":3,"state":{"items":["tea","tea"],"paid":true}}"#[..])
    );
}

#[test]
fn a_command_with_nothing_to_do_writes_nothing() {
    let mut host = Host::new();
    let effects = host.deliver(order, command(r#""Nothing""#)).unwrap();
    assert_eq!((effects, host.cell("a.7", CELL)), (Effects::default(), None));
}

#[test]
fn a_rejection_is_an_event_and_no_fact() {
    let mut host = Host::new();
    let effects = host
        .deliver(
            order,
            command(r#""Pay""#).stored("ORDERS", 9).header("Saga-Id", "a.7"),
        )
        .unwrap();
    assert_eq!(
        told(&effects),
        [
            r#"shop.order.a%2E7.rejected Event-Type=Rejected Aggregate-Version=0 Saga-Id=a.7 {"command":"ORDERS:9","version":0,"reason":"Empty"}"#
        ]
    );
    assert_eq!(host.cell("a.7", CELL), None);
    let rejection = testing::event(&effects.emitted[0].subject)
        .header(EVENT_TYPE, REJECTED)
        .header(AGGREGATE_VERSION, "0")
        .data(effects.emitted[0].data.clone());
    let read = |event: Event| {
        assert_eq!(read::<Happened>(&event)?, None);
        let rejected: Rejected = event.json()?;
        assert_eq!(
            (&*rejected.command, rejected.reason),
            ("ORDERS:9", Some("Empty".into()))
        );
        Ok::<_, Error>(())
    };
    host.deliver(read, rejection).unwrap();
}

#[test]
fn an_expected_version_is_compared() {
    let mut host = Host::new();
    let add = |version: &str| command(r#"{"Add":"tea"}"#).header("expected-version", version);
    assert_eq!(told(&host.deliver(order, add("0")).unwrap()).len(), 1);
    let effects = host.deliver(order, add("0").stored("C", 5)).unwrap();
    assert_eq!(
        told(&effects),
        [
            r#"shop.order.a%2E7.rejected Event-Type=Rejected Aggregate-Version=1 {"command":"C:5","version":1,"expected_version":0}"#
        ]
    );
    assert!(host.deliver(order, add("one")).unwrap_err().is_reject());
    host.deliver(order, add("1")).unwrap();
    assert!(
        host.cell("a.7", CELL)
            .is_some_and(|cell| cell.starts_with(br#"{"version":2"#))
    );
}

#[test]
fn what_is_no_command_is_rejected() {
    let error = Host::new().deliver(order, command("{}")).unwrap_err();
    assert!(
        error.is_reject() && error.reason().starts_with("the command: "),
        "{error}"
    );
}

/// In Wasm the panic is a trap. Either way, the host keeps nothing of the invocation.
#[test]
fn a_panic_in_evolve_leaves_nothing_behind() {
    let mut host = Host::new();
    host.deliver(order, command(r#"{"Add":"tea"}"#)).unwrap();
    let before = host.cell("a.7", CELL).map(<[u8]>::to_vec);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        host.deliver(order, command(r#"{"Add":"bomb"}"#))
    }));
    assert!(panicked.is_err());
    assert_eq!(host.cell("a.7", CELL).map(<[u8]>::to_vec), before);
}

#[test]
fn types_are_found_however_serde_writes_them() {
    for (json, expected) in [
        (r#""Paid""#, Some("Paid")),
        (r#"{"Added":{"item":"x"}}"#, Some("Added")),
        (r#"{"type":"added","item":"x"}"#, Some("added")),
        (r#"{"type":7}"#, None),
        (r#"{"a":1,"b":2}"#, None),
        ("7", None),
    ] {
        let value = serde_json::from_str(json).unwrap();
        assert_eq!(type_of(&value), expected, "{json}");
    }
}

#[test]
fn decisions_are_tested_without_a_host() {
    let tea = || Happened::Added { item: "tea".into() };
    given::<Order>([]).when(Command::Pay).rejects(Refusal::Empty);
    given::<Order>([tea()]).when(Command::Pay).then([Happened::Paid]);
    given::<Order>([tea(), Happened::Paid])
        .when(Command::Pay)
        .rejects(Refusal::AlreadyPaid);
    given::<Order>([tea()]).when(Command::Nothing).then([]);
}

#[test]
#[should_panic(expected = "decided [Paid]")]
fn a_wrong_expectation_fails() {
    given::<Order>([Happened::Added { item: "tea".into() }])
        .when(Command::Pay)
        .then([]);
}
