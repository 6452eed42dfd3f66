#!/bin/sh
# Fail if the macro F1 of an evaluation has dropped against another one by more than chance explains: if the whole 95 % interval of
# their paired difference lies below 0.
#   sh examples/evaluation/gate.sh digits.v2 digits.v1 [http://127.0.0.1:8000]
set -eu
answer=$(curl --silent --show-error --fail-with-body --retry 5 --retry-connrefused ${LOSSD_API_KEY:+--oauth2-bearer "$LOSSD_API_KEY"} \
  "${3:-http://127.0.0.1:8000}/v1/evaluations/$1?against=$2&metrics=f1&interval=0.95") || { echo "$answer" >&2; exit 1; }
echo "$answer" | jq '{rows, rows_paired, complete} + .difference["f1.macro"]'
echo "$answer" | jq --exit-status '.complete and .rows_paired == .rows and .difference["f1.macro"].interval[1] >= 0' >/dev/null
