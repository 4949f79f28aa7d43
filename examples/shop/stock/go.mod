module stock

go 1.27

require weir.dev/guest v0.0.0

replace weir.dev/guest => ../../../guest-sdk/go
