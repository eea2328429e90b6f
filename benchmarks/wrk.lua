-- Ends wrk after a number of responses and prints what it has measured as JSON.
-- wrk sleeps until its duration is over or a SIGINT arrives, so it sends itself one.
local ffi = require("ffi")
ffi.cdef("int getpid(void); int kill(int, int);")
local SIGINT = 2
local wanted, seen = 0, 0

function init(arguments)
  wanted = tonumber(arguments[1])
end

function response(status)
  seen = seen + 1
  if seen == wanted then
    wrk.thread:stop()
    ffi.C.kill(ffi.C.getpid(), SIGINT)
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "errors": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
