;; WASI 0.1 (`wasi_snapshot_preview1`) on the WASI 0.2 that handlers have: clocks,
;; random numbers, waiting, stdout, stderr and exit. There are no arguments,
;; variables, files or sockets: asking for one is an errno, never a trap.
;;
;; Why not the stock adapter of wasmtime: it allocates a stack in the guest's
;; memory by the guest's own `cabi_realloc`, the first time anything is called.
;; Go calls the clock before its runtime can allocate, and traps. This one has
;; no stack, no data and no state but a few globals. Where a result has to be
;; written to memory it borrows the first 16 bytes of the guest's and puts them
;; back before it returns; the guest does not run meanwhile.
;;
;; `adapter_monotonic_clock_set_paused` is wasmtime's extension for Go: inside
;; `cabi_realloc` no import may be called, but Go's collector may run there, and
;; measures itself. While paused the clock answers what it answered last.
;;
;; wit-component removes the functions that a module does not import, and with
;; them the imports that only they need.
(module
  (import "env" "memory" (memory 0))
  (import "wasi:clocks/wall-clock@0.2.0" "now" (func $wall_now (param i32)))
  (import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $monotonic_now (result i64)))
  (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-instant" (func $subscribe (param i64) (result i32)))
  (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
  (import "wasi:io/poll@0.2.0" "[resource-drop]pollable" (func $drop_pollable (param i32)))
  (import "wasi:random/random@0.2.0" "get-random-u64" (func $random (result i64)))
  (import "wasi:cli/stdout@0.2.0" "get-stdout" (func $get_stdout (result i32)))
  (import "wasi:cli/stderr@0.2.0" "get-stderr" (func $get_stderr (result i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
    (func $write (param i32 i32 i32 i32)))
  (import "wasi:cli/exit@0.2.0" "exit" (func $exit (param i32)))

  ;; Unix nanoseconds. What the clocks answered last; Go takes a monotonic zero for
  ;; a broken clock.
  (global $monotonic (mut i64) (i64.const 1))
  (global $wall (mut i64) (i64.const 0))
  (global $paused (mut i32) (i32.const 0))
  ;; Handles of the streams, asked for once; -1 before.
  (global $stdout (mut i32) (i32.const -1))
  (global $stderr (mut i32) (i32.const -1))

  ;; --- Clocks ---------------------------------------------------------------

  (func (export "adapter_monotonic_clock_set_paused") (param $paused i32)
    (global.set $paused (local.get $paused)))

  ;; Never goes back, also after a wait that ended while it was paused.
  (func $monotonic_time (result i64)
    (local $now i64)
    (if (i32.eqz (global.get $paused))
      (then
        (local.set $now (call $monotonic_now))
        (if (i64.gt_u (local.get $now) (global.get $monotonic))
          (then (global.set $monotonic (local.get $now))))))
    (global.get $monotonic))

  (func $wall_time (result i64)
    (local $saved_0 i64) (local $saved_8 i64)
    (if (i32.eqz (global.get $paused))
      (then
        (local.set $saved_0 (i64.load offset=0 (i32.const 0)))
        (local.set $saved_8 (i64.load offset=8 (i32.const 0)))
        (call $wall_now (i32.const 0))
        (global.set $wall
          (i64.add
            (i64.mul (i64.load offset=0 (i32.const 0)) (i64.const 1000000000))
            (i64.load32_u offset=8 (i32.const 0))))
        (i64.store offset=0 (i32.const 0) (local.get $saved_0))
        (i64.store offset=8 (i32.const 0) (local.get $saved_8))))
    (global.get $wall))

  ;; 0 is the wall clock, 1 the monotonic one, 2 and 3 the processor time of the
  ;; process and the thread, for which the monotonic one stands in.
  (func (export "clock_time_get") (param $id i32) (param $precision i64) (param $result i32) (result i32)
    (if (i32.gt_u (local.get $id) (i32.const 3)) (then (return (i32.const 28)))) ;; EINVAL
    (i64.store (local.get $result)
      (if (result i64) (local.get $id)
        (then (call $monotonic_time))
        (else (call $wall_time))))
    (i32.const 0))

  (func (export "clock_res_get") (param $id i32) (param $result i32) (result i32)
    (if (i32.gt_u (local.get $id) (i32.const 3)) (then (return (i32.const 28))))
    (i64.store (local.get $result) (i64.const 1))
    (i32.const 0))

  ;; --- Waiting --------------------------------------------------------------

  (func $add_saturating (param $a i64) (param $b i64) (result i64)
    (local $sum i64)
    (local.set $sum (i64.add (local.get $a) (local.get $b)))
    (select (i64.const -1) (local.get $sum) (i64.lt_u (local.get $sum) (local.get $a))))

  ;; Takes no time: the host moves the clock.
  (func $wait_until (param $until i64)
    (local $pollable i32)
    (if (global.get $paused)
      (then
        (if (i64.gt_u (local.get $until) (global.get $monotonic))
          (then (global.set $monotonic (local.get $until))))
        (return)))
    (local.set $pollable (call $subscribe (local.get $until)))
    (call $block (local.get $pollable))
    (call $drop_pollable (local.get $pollable)))

  ;; When a clock subscription is due, in monotonic time.
  (func $due (param $subscription i32) (result i64)
    (local $timeout i64) (local $wall i64)
    (local.set $timeout (i64.load offset=24 (local.get $subscription)))
    ;; Bit 0 of the flags: the timeout is a moment, not a duration.
    (if (i32.and (i32.load16_u offset=40 (local.get $subscription)) (i32.const 1))
      (then
        (if (i32.load offset=16 (local.get $subscription))
          (then (return (local.get $timeout))))
        (local.set $wall (call $wall_time))
        (local.set $timeout
          (select
            (i64.sub (local.get $timeout) (local.get $wall))
            (i64.const 0)
            (i64.gt_u (local.get $timeout) (local.get $wall))))))
    (call $add_saturating (call $monotonic_time) (local.get $timeout)))

  (func $event (param $event i32) (param $subscription i32) (param $errno i32)
    (i64.store offset=0 (local.get $event) (i64.load (local.get $subscription)))
    (i64.store offset=8 (local.get $event) (i64.const 0))
    (i64.store offset=16 (local.get $event) (i64.const 0))
    (i64.store offset=24 (local.get $event) (i64.const 0))
    (i32.store16 offset=8 (local.get $event) (local.get $errno))
    (i32.store8 offset=10 (local.get $event) (i32.load8_u offset=8 (local.get $subscription))))

  ;; Standard streams are ready and other descriptors in error, so where one is
  ;; asked for the answer is there; otherwise the earliest clock is waited for.
  (func (export "poll_oneoff")
    (param $in i32) (param $out i32) (param $count i32) (param $events i32) (result i32)
    (local $left i32) (local $subscription i32) (local $ready i32) (local $first i32)
    (local $fd i32) (local $at i64) (local $until i64)
    (if (i32.eqz (local.get $count)) (then (return (i32.const 28))))
    (local.set $subscription (local.get $in))
    (local.set $left (local.get $count))
    (local.set $until (i64.const -1))
    (local.set $first (local.get $in))
    (loop $next
      (if (i32.load8_u offset=8 (local.get $subscription))
        (then
          (local.set $fd (i32.load offset=16 (local.get $subscription)))
          (call $event
            (i32.add (local.get $out) (i32.shl (local.get $ready) (i32.const 5)))
            (local.get $subscription)
            (call $check_fd (local.get $fd)))
          (local.set $ready (i32.add (local.get $ready) (i32.const 1))))
        (else
          (local.set $at (call $due (local.get $subscription)))
          (if (i64.lt_u (local.get $at) (local.get $until))
            (then
              (local.set $until (local.get $at))
              (local.set $first (local.get $subscription))))))
      (local.set $subscription (i32.add (local.get $subscription) (i32.const 48)))
      (br_if $next (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (if (i32.eqz (local.get $ready))
      (then
        (call $wait_until (local.get $until))
        (call $event (local.get $out) (local.get $first) (i32.const 0))
        (local.set $ready (i32.const 1))))
    (i32.store (local.get $events) (local.get $ready))
    (i32.const 0))

  (func (export "sched_yield") (result i32) (i32.const 0))

  ;; --- Random numbers -------------------------------------------------------

  (func (export "random_get") (param $to i32) (param $bytes i32) (result i32)
    (local $number i64)
    (block $done
      (loop $eight
        (br_if $done (i32.lt_u (local.get $bytes) (i32.const 8)))
        (i64.store (local.get $to) (call $random))
        (local.set $to (i32.add (local.get $to) (i32.const 8)))
        (local.set $bytes (i32.sub (local.get $bytes) (i32.const 8)))
        (br $eight)))
    (if (local.get $bytes)
      (then
        (local.set $number (call $random))
        (loop $one
          (i64.store8 (local.get $to) (local.get $number))
          (local.set $number (i64.shr_u (local.get $number) (i64.const 8)))
          (local.set $to (i32.add (local.get $to) (i32.const 1)))
          (br_if $one (local.tee $bytes (i32.sub (local.get $bytes) (i32.const 1)))))))
    (i32.const 0))

  ;; --- Standard streams: 0 is at its end, 1 and 2 are the handler's log --------

  (func $check_fd (param $fd i32) (result i32)
    (select (i32.const 8) (i32.const 0) (i32.gt_u (local.get $fd) (i32.const 2)))) ;; EBADF

  (func $stream (param $fd i32) (result i32)
    (if (i32.eq (local.get $fd) (i32.const 1))
      (then
        (if (i32.eq (global.get $stdout) (i32.const -1))
          (then (global.set $stdout (call $get_stdout))))
        (return (global.get $stdout))))
    (if (i32.eq (global.get $stderr) (i32.const -1))
      (then (global.set $stderr (call $get_stderr))))
    (global.get $stderr))

  ;; Writes all of it, or says that the stream is closed.
  (func $write_all (param $stream i32) (param $from i32) (param $bytes i32) (result i32)
    (local $part i32) (local $saved_0 i64) (local $saved_8 i64) (local $failed i32)
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $bytes)))
        ;; What WASI 0.2 takes at once.
        (local.set $part
          (select (i32.const 4096) (local.get $bytes) (i32.gt_u (local.get $bytes) (i32.const 4096))))
        (local.set $saved_0 (i64.load offset=0 (i32.const 0)))
        (local.set $saved_8 (i64.load offset=8 (i32.const 0)))
        (call $write (local.get $stream) (local.get $from) (local.get $part) (i32.const 0))
        (local.set $failed (i32.load8_u (i32.const 0)))
        (i64.store offset=0 (i32.const 0) (local.get $saved_0))
        (i64.store offset=8 (i32.const 0) (local.get $saved_8))
        (if (local.get $failed) (then (return (i32.const 29)))) ;; EIO
        (local.set $from (i32.add (local.get $from) (local.get $part)))
        (local.set $bytes (i32.sub (local.get $bytes) (local.get $part)))
        (br $next)))
    (i32.const 0))

  (func (export "fd_write")
    (param $fd i32) (param $vectors i32) (param $count i32) (param $written i32) (result i32)
    (local $bytes i32) (local $all i32) (local $errno i32)
    (if (i32.or (i32.eqz (local.get $fd)) (i32.gt_u (local.get $fd) (i32.const 2)))
      (then (return (i32.const 8))))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $count)))
        (local.set $bytes (i32.load offset=4 (local.get $vectors)))
        (local.set $errno
          (call $write_all
            (call $stream (local.get $fd))
            (i32.load offset=0 (local.get $vectors))
            (local.get $bytes)))
        (if (local.get $errno) (then (return (local.get $errno))))
        (local.set $all (i32.add (local.get $all) (local.get $bytes)))
        (local.set $vectors (i32.add (local.get $vectors) (i32.const 8)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next)))
    (i32.store (local.get $written) (local.get $all))
    (i32.const 0))

  (func (export "fd_read")
    (param $fd i32) (param $vectors i32) (param $count i32) (param $read i32) (result i32)
    (if (local.get $fd) (then (return (i32.const 8))))
    (i32.store (local.get $read) (i32.const 0))
    (i32.const 0))

  ;; Terminals without a right to seek, which is what makes C libraries pass on
  ;; each line as it ends: nothing flushes at the exit of a handler, which has none.
  (func (export "fd_fdstat_get") (param $fd i32) (param $result i32) (result i32)
    (if (i32.gt_u (local.get $fd) (i32.const 2)) (then (return (i32.const 8))))
    (i64.store offset=0 (local.get $result) (i64.const 2)) ;; a character device, no flags
    (i64.store offset=8 (local.get $result) ;; may read, or may write
      (select (i64.const 64) (i64.const 2) (local.get $fd)))
    (i64.store offset=16 (local.get $result) (i64.const 0))
    (i32.const 0))

  (func (export "fd_filestat_get") (param $fd i32) (param $result i32) (result i32)
    (if (i32.gt_u (local.get $fd) (i32.const 2)) (then (return (i32.const 8))))
    (i64.store offset=0 (local.get $result) (i64.const 0))
    (i64.store offset=8 (local.get $result) (i64.extend_i32_u (local.get $fd)))
    (i64.store offset=16 (local.get $result) (i64.const 2))
    (i64.store offset=24 (local.get $result) (i64.const 1))
    (i64.store offset=32 (local.get $result) (i64.const 0))
    (i64.store offset=40 (local.get $result) (i64.const 0))
    (i64.store offset=48 (local.get $result) (i64.const 0))
    (i64.store offset=56 (local.get $result) (i64.const 0))
    (i32.const 0))

  (func (export "fd_fdstat_set_flags") (param $fd i32) (param i32) (result i32)
    (call $check_fd (local.get $fd)))
  (func (export "fd_close") (param $fd i32) (result i32)
    (call $check_fd (local.get $fd)))
  (func (export "fd_sync") (param $fd i32) (result i32)
    (call $check_fd (local.get $fd)))
  (func (export "fd_datasync") (param $fd i32) (result i32)
    (call $check_fd (local.get $fd)))
  (func (export "fd_seek") (param $fd i32) (param i64 i32 i32) (result i32)
    (select (i32.const 70) (i32.const 8) (i32.le_u (local.get $fd) (i32.const 2)))) ;; ESPIPE
  (func (export "fd_tell") (param $fd i32) (param i32) (result i32)
    (select (i32.const 70) (i32.const 8) (i32.le_u (local.get $fd) (i32.const 2))))

  ;; --- The end ----------------------------------------------------------------

  ;; The world's exit only knows success and failure.
  (func (export "proc_exit") (param $code i32)
    (call $exit (i32.ne (local.get $code) (i32.const 0)))
    unreachable)
  (func (export "proc_raise") (param i32) (result i32) (i32.const 52)) ;; ENOSYS

  ;; --- Nothing of it here -------------------------------------------------------

  (func $none (param $count i32) (param $bytes i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $bytes) (i32.const 0))
    (i32.const 0))
  (func (export "args_sizes_get") (param $count i32) (param $bytes i32) (result i32)
    (call $none (local.get $count) (local.get $bytes)))
  (func (export "environ_sizes_get") (param $count i32) (param $bytes i32) (result i32)
    (call $none (local.get $count) (local.get $bytes)))
  (func (export "args_get") (param i32 i32) (result i32) (i32.const 0))
  (func (export "environ_get") (param i32 i32) (result i32) (i32.const 0))

  ;; No descriptor is a file, a directory or a socket: EBADF. It is also what ends
  ;; a C library's search for directories (`fd_prestat_get`).
  (func (export "fd_advise") (param i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_allocate") (param i32 i64 i64) (result i32) (i32.const 8))
  (func (export "fd_fdstat_set_rights") (param i32 i64 i64) (result i32) (i32.const 8))
  (func (export "fd_filestat_set_size") (param i32 i64) (result i32) (i32.const 8))
  (func (export "fd_filestat_set_times") (param i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_pread") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_prestat_get") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_prestat_dir_name") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "fd_pwrite") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_readdir") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_renumber") (param i32 i32) (result i32) (i32.const 8))
  (func (export "path_create_directory") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_filestat_get") (param i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_filestat_set_times") (param i32 i32 i32 i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "path_link") (param i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_open") (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32) (i32.const 8))
  (func (export "path_readlink") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_remove_directory") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_rename") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_symlink") (param i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_unlink_file") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "sock_accept") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "sock_recv") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "sock_send") (param i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "sock_shutdown") (param i32 i32) (result i32) (i32.const 8)))
