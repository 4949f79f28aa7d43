//! The C library from Zig: the declarations of `weir.h`, and its formats, which
//! in C are macros.
//!
//! `bindings.zig` is made by `zig translate-c` of `weir.h`; the Makefile does it.

pub const c = @import("bindings.zig");

/// `weir_format`: the formats of `weir.h`. What does not fit one is a panic of the handler that says so.
pub fn format(text: [*:0]const u8, values: anytype) c.weir_bytes {
    const args = boxed(text, values);
    return c.weir_format_args(&args, args.len);
}

/// `weir_textf`: a C string, for names and subjects.
pub fn textf(text: [*:0]const u8, values: anytype) [*c]const u8 {
    const args = boxed(text, values);
    return c.weir_textf_args(&args, args.len);
}

/// `weir_retry`: nothing of this invocation counts; call again later.
pub fn retry(text: [*:0]const u8, values: anytype) c.weir_result {
    const args = boxed(text, values);
    return c.weir_fail_args(c.WEIR_RETRY, &args, args.len);
}

/// `weir_reject`: nothing of this invocation counts; dead-letter the event.
pub fn reject(text: [*:0]const u8, values: anytype) c.weir_result {
    const args = boxed(text, values);
    return c.weir_fail_args(c.WEIR_REJECT, &args, args.len);
}

/// `weir_panic`: for what must not happen.
pub fn panic(text: [*:0]const u8, values: anytype) noreturn {
    const args = boxed(text, values);
    c.weir_panic_args(&args, args.len);
}

fn boxed(text: [*:0]const u8, values: anytype) [values.len + 1]c.weir_arg {
    var args: [values.len + 1]c.weir_arg = undefined;
    args[0] = c.weir_arg_text(text);
    inline for (values, 1..) |value, i| args[i] = box(value);
    return args;
}

fn box(value: anytype) c.weir_arg {
    const T = @TypeOf(value);
    if (T == c.weir_bytes) return c.weir_arg_bytes(value);
    return switch (@typeInfo(T)) {
        .comptime_int => c.weir_arg_integer(value),
        .int => |int| if (int.signedness == .signed) c.weir_arg_integer(value) else c.weir_arg_unsigned(value),
        .float, .comptime_float => c.weir_arg_double(value),
        .pointer => c.weir_arg_text(value), // NUL-terminated
        else => @compileError("no format takes a " ++ @typeName(T)),
    };
}
