/* Tells of a sensor's readings that are out of line with the last ones.
 *
 * Events are readings, {"sensor":"t-17","value":21.5}, keyed by sensor. One cell per sensor:
 *
 *   cell `window`   the last readings, oldest first: doubles as they lie in memory, 8 bytes each
 *
 * A reading that is more than `sigmas` standard deviations off the mean of those before it is
 * emitted on `outliers.<sensor>`. It still enters the window: a sensor that has moved for good
 * is new for as long as the window is, and then no more.
 *
 * Bytes rather than text: a reading stays what it was to the last bit, and a window of 1,000
 * readings is copied, not parsed. Wasm is little-endian everywhere, so the cell is the same on
 * every machine. */

#include <math.h>
#include <string.h>

#include "weir.h"

/* Readings of a window, unless [config] says otherwise. */
#define READINGS 50
/* The cell is written with every event, so a window is bounded: 8 KiB. */
#define READINGS_MAX 1024
#define SIGMAS 3.0
/* Fewer say nothing about what is usual. */
#define READINGS_TO_JUDGE 10

typedef struct statistic {
  double mean;
  double sigma; /* of the sample: with n - 1 */
} statistic;

/* In two passes: the sum of squares less the square of sums loses all digits where readings
 * are large beside their differences. */
static statistic of(const double *readings, size_t len) {
  statistic result = {0, 0};
  for (size_t i = 0; i < len; i++) result.mean += readings[i] / (double)len;
  for (size_t i = 0; i < len; i++) {
    double off = readings[i] - result.mean;
    result.sigma += off * off / (double)(len - 1);
  }
  result.sigma = sqrt(result.sigma);
  return result;
}

/* The readings kept so far, with room for one more behind them. */
static double *window(size_t *len) {
  weir_bytes bytes;
  weir_cell_get("window", &bytes);
  if (bytes.len % sizeof(double) != 0) weir_panic("cell \"window\" has %zu bytes, which are no doubles", bytes.len);
  *len = bytes.len / sizeof(double);
  double *readings = weir_alloc(bytes.len + sizeof *readings);
  if (bytes.len > 0) memcpy(readings, bytes.data, bytes.len);
  return readings;
}

weir_result weir_handle(const weir_event *event) {
  double value;
  if (!weir_json_number(event->data, "/value", &value)) return weir_reject("no number at /value");
  int64_t readings_max = weir_config_integer("readings", READINGS);
  double sigmas = weir_config_number("sigmas", SIGMAS);
  if (readings_max < READINGS_TO_JUDGE || readings_max > READINGS_MAX) {
    weir_panic("[config] of handler.toml: readings = \"%d\", may be %d to %d", readings_max, READINGS_TO_JUDGE, READINGS_MAX);
  }

  size_t len;
  double *readings = window(&len);
  if (len >= READINGS_TO_JUDGE) {
    statistic usual = of(readings, len);
    if (fabs(value - usual.mean) > sigmas * usual.sigma) {
      weir_emitf(weir_textf("outliers.%s", weir_subject_token(event->key)),
                 "{\"sensor\":%j,\"value\":%.3f,\"mean\":%.3f,\"sigma\":%.3f,\"of\":%j}", event->key, value, usual.mean,
                 usual.sigma, event->id);
    }
  }

  readings[len++] = value;
  /* More than one too many where `readings` of [config] was lowered. */
  size_t kept = len > (size_t)readings_max ? (size_t)readings_max : len;
  weir_cell_set("window", weir_slice(readings + (len - kept), kept * sizeof *readings));
  return weir_ok();
}
