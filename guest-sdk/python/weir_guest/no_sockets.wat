;; wasi:sockets for a component that must have it and must not use it.
;;
;; The C library inside a Python component imports sockets whether or not the
;; handler does, and a host refuses whoever imports them. This takes their place:
;; `weir_guest.build` makes a component of it and composes it in, so that the
;; imports are gone from the handler that is deployed.
;;
;; What creates a socket or looks up a name answers `access-denied`, which Python
;; raises as PermissionError. All else is about a socket that cannot exist.
(module
  (import "cm32p2|_ex_wasi:sockets/network@0.2" "network_new" (func $network_new (param i32) (result i32)))
  (memory (export "cm32p2_memory") 1)

  ;; result<own<…>, error-code>: the error, and `access-denied`, its second case.
  (data (i32.const 16) "\01\00\00\00\01")

  ;; For the name to look up, which nobody reads: always the same place.
  (func (export "cm32p2_realloc") (param i32 i32 i32) (param $bytes i32) (result i32)
    (if (i32.gt_u (local.get $bytes) (i32.const 32768)) (then unreachable))
    (i32.const 1024))
  (func (export "cm32p2_initialize"))

  (func (export "cm32p2|wasi:sockets/instance-network@0.2|instance-network") (result i32)
    (call $network_new (i32.const 1)))
  (func
    (export "cm32p2|wasi:sockets/udp-create-socket@0.2|create-udp-socket")
    (export "cm32p2|wasi:sockets/tcp-create-socket@0.2|create-tcp-socket")
    (param i32) (result i32)
    (i32.const 16))
  (func (export "cm32p2|wasi:sockets/ip-name-lookup@0.2|resolve-addresses") (param i32 i32 i32) (result i32)
    (i32.const 16))

  (func
    (export "cm32p2|wasi:sockets/network@0.2|network_dtor")
    (export "cm32p2|wasi:sockets/udp@0.2|udp-socket_dtor")
    (export "cm32p2|wasi:sockets/udp@0.2|incoming-datagram-stream_dtor")
    (export "cm32p2|wasi:sockets/udp@0.2|outgoing-datagram-stream_dtor")
    (export "cm32p2|wasi:sockets/tcp@0.2|tcp-socket_dtor")
    (export "cm32p2|wasi:sockets/ip-name-lookup@0.2|resolve-address-stream_dtor")
    (param i32))

  ;; Methods of sockets, by what they take.
  (func
    (export "cm32p2|wasi:sockets/udp@0.2|[method]udp-socket.start-bind")
    (export "cm32p2|wasi:sockets/udp@0.2|[method]udp-socket.stream")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.start-bind")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.start-connect")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    unreachable)
  (func
    (export "cm32p2|wasi:sockets/udp@0.2|[method]udp-socket.finish-bind")
    (export "cm32p2|wasi:sockets/udp@0.2|[method]udp-socket.local-address")
    (export "cm32p2|wasi:sockets/udp@0.2|[method]udp-socket.remote-address")
    (export "cm32p2|wasi:sockets/udp@0.2|[method]udp-socket.unicast-hop-limit")
    (export "cm32p2|wasi:sockets/udp@0.2|[method]udp-socket.receive-buffer-size")
    (export "cm32p2|wasi:sockets/udp@0.2|[method]udp-socket.send-buffer-size")
    (export "cm32p2|wasi:sockets/udp@0.2|[method]udp-socket.subscribe")
    (export "cm32p2|wasi:sockets/udp@0.2|[method]incoming-datagram-stream.subscribe")
    (export "cm32p2|wasi:sockets/udp@0.2|[method]outgoing-datagram-stream.check-send")
    (export "cm32p2|wasi:sockets/udp@0.2|[method]outgoing-datagram-stream.subscribe")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.finish-bind")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.finish-connect")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.start-listen")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.finish-listen")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.accept")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.local-address")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.remote-address")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.is-listening")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.keep-alive-enabled")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.keep-alive-idle-time")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.keep-alive-interval")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.keep-alive-count")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.hop-limit")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.receive-buffer-size")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.send-buffer-size")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.subscribe")
    (export "cm32p2|wasi:sockets/ip-name-lookup@0.2|[method]resolve-address-stream.resolve-next-address")
    (export "cm32p2|wasi:sockets/ip-name-lookup@0.2|[method]resolve-address-stream.subscribe")
    (param i32) (result i32)
    unreachable)
  (func
    (export "cm32p2|wasi:sockets/udp@0.2|[method]udp-socket.set-unicast-hop-limit")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.set-keep-alive-enabled")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.set-keep-alive-count")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.set-hop-limit")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.shutdown")
    (param i32 i32) (result i32)
    unreachable)
  (func
    (export "cm32p2|wasi:sockets/udp@0.2|[method]udp-socket.set-receive-buffer-size")
    (export "cm32p2|wasi:sockets/udp@0.2|[method]udp-socket.set-send-buffer-size")
    (export "cm32p2|wasi:sockets/udp@0.2|[method]incoming-datagram-stream.receive")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.set-listen-backlog-size")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.set-keep-alive-idle-time")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.set-keep-alive-interval")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.set-receive-buffer-size")
    (export "cm32p2|wasi:sockets/tcp@0.2|[method]tcp-socket.set-send-buffer-size")
    (param i32 i64) (result i32)
    unreachable)
  (func
    (export "cm32p2|wasi:sockets/udp@0.2|[method]outgoing-datagram-stream.send")
    (param i32 i32 i32) (result i32)
    unreachable))
