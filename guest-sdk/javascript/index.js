// Write Weir handlers in JavaScript. What there is, and its types and
// documentation, is in `index.d.ts`; this file only says where it comes from.
//
// | file | has |
// | --- | --- |
// | src/handler.js | `handler`: around the function, from the bindings and back |
// | src/event.js | `Event` |
// | src/failure.js | `Retry`, `Reject`, and what other exceptions become |
// | src/state.js | `cells`, `cell` |
// | src/shared.js | `shared`: what keys have in common |
// | src/output.js | `emit` |
// | src/timers.js, src/config.js, src/log.js, src/subject.js | what they are called |
// | src/format.js, src/utf8.js | values as lines of a log; text as bytes |
// | src/host/wasm.js | the host's functions, inside a component |
// | src/host/testing.js, src/host/sharing.js | the same outside of one: `weir-guest/testing` |
//
// `#host` is one of the last two; `package.json` says which, and when.

export { config } from "./src/config.js";
export { Event } from "./src/event.js";
export { Reject, Retry } from "./src/failure.js";
export { handler } from "./src/handler.js";
export { log } from "./src/log.js";
export { emit } from "./src/output.js";
export { shared } from "./src/shared.js";
export { cell, cells } from "./src/state.js";
export { subjectToken } from "./src/subject.js";
export { timers } from "./src/timers.js";
