//! A breaking version of the interface can be served beside the one there is
//! (`wit/README.md`): one linker has the imports of both tracks, the same host
//! implementation stands behind both, and guests of both run in one engine.

use wasmtime::Store;
use wasmtime::component::Component;
use wit_component::ComponentEncoder;

use super::*;
use crate::handler::bindings::weir::handler::output as today;
use crate::handler::bindings::{Handler, HandlerPre};
use crate::handler::host::{Host, HostData};
use crate::handler::program::{Kind, Pre};

mod next {
    wasmtime::component::bindgen!({
        path: "../tests/fixtures/next-wit",
        world: "handler",
        imports: { default: trappable },
    });
}

impl next::weir::handler::output::Host for Host {
    fn emit(&mut self, subject: String, data: Vec<u8>) -> wasmtime::Result<u64> {
        // The implementation is that of the track before.
        today::Host::emit(self, subject, Vec::new(), data)?;
        Ok(self.emitted())
    }
}

/// Emits its data on `out.next`, twice.
const NEXT: &str = r#"(module
  (import "weir:handler/output@0.2.0" "emit" (func $emit (param i32 i32 i32 i32) (result i64)))
  (memory (export "memory") 1)
  (global $free (mut i32) (i32.const 1024))
  (data (i32.const 0) "out.next")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $free))
    (global.set $free (i32.add (global.get $free) (local.get 3)))
    (local.get $at))
  (func (export "handle") (param $key i32) (param i32) (param $data i32) (param $length i32) (result i64)
    (drop (call $emit (i32.const 0) (i32.const 8) (local.get $data) (local.get $length)))
    (call $emit (i32.const 0) (i32.const 8) (local.get $data) (local.get $length))))"#;

fn next_component(engine: &Engine) -> Component {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/next-wit");
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(folder).expect("the next version parses");
    let world = resolve
        .select_world(&[package], Some("handler"))
        .expect("the world is there");
    let mut wasm = wat::parse_str(NEXT).expect("valid text");
    wit_component::embed_component_metadata(&mut wasm, &resolve, world, StringEncoding::UTF8)
        .expect("metadata fits");
    let mut encoder = ComponentEncoder::default().module(&wasm).expect("a module");
    let component = encoder.encode().expect("a component");
    Component::from_binary(&engine.wasmtime, &component).expect("valid")
}

#[test]
fn a_breaking_version_is_served_beside_the_one_before() {
    let engine = engine();
    let mut linker = engine.linker.clone();
    next::Handler::add_to_linker::<_, HostData>(&mut linker, |host| host).expect("both fit into one linker");
    let settings = Arc::new(settings());

    // A guest of the next version: other imports, another export.
    let component = next_component(&engine);
    let host = Host::new(Arc::clone(&settings), Kind::Plain, &engine.transport, None);
    let mut store = Store::new(&engine.wasmtime, host);
    store.limiter(|host| &mut host.limiter);
    store.set_epoch_deadline(Engine::ticks(limits().time_ms));
    let guest = next::Handler::instantiate(&mut store, &component, &linker).expect("it starts");
    store.data_mut().begin("S:1", &"k".into(), 0, &state(&[], &[]));
    let emitted = guest.call_handle(&mut store, "k", b"new").expect("it runs");
    let effects = store.data_mut().end();
    assert_eq!((emitted, effects.emits.len()), (2, 2));
    assert_eq!(effects.emits[0].subject, "out.next");
    assert_eq!(effects.emits[1].data, "new");

    // One of today, by the same linker.
    let wasm = ComponentEncoder::default()
        .module(&module(PROBE))
        .expect("a module")
        .encode()
        .expect("a component");
    let component = Component::from_binary(&engine.wasmtime, &wasm).expect("valid");
    let pre = linker.instantiate_pre(&component).expect("its imports are there");
    let program = Arc::new(Program {
        engine: Arc::clone(&engine),
        pre: Pre::Handler(HandlerPre::new(pre).expect("it exports handle")),
        settings,
        kind: Kind::Plain,
        shares: false,
    });
    let mut instance = program.instantiate().expect("it starts");
    let script = script().emit("out.today", "old");
    let effects = instance
        .handle(&event(script), &CALL, &state(&[], &[]))
        .expect("effects");
    assert_eq!(effects.emits[0].subject, "out.today");

    // Neither is taken for the other.
    assert!(Handler::instantiate(&mut store, &next_component(&engine), &linker).is_err());
}
