//! Numbers the events of each key: 1, 2, 3, … In Zig, on the C library.

const weir = @import("weir.zig");
const c = weir.c;

export fn weir_handle(event: *const c.weir_event) c.weir_result {
    var order: c.weir_bytes = undefined;
    if (c.weir_event_header(event, "Weir-Test", &order)) {
        if (c.weir_is(order, "retry")) return weir.retry("asked to retry", .{});
        if (c.weir_is(order, "reject")) return weir.reject("asked to reject", .{});
        if (c.weir_is(order, "trap")) weir.panic("asked to trap", .{});
    }
    const n = c.weir_cell_add("n", 1);
    const subject = weir.textf("rotations.%s", .{c.weir_subject_token(event.key)});
    c.weir_emit(subject, null, 0, weir.format("{\"key\":%j,\"n\":%d,\"of\":%j}", .{ event.key, n, event.id }));
    return c.weir_ok();
}
