#!/usr/bin/env bash
# A gate for CI: fails if f1.macro of NEW is certainly lower than that of OLD, by its paired interval.
#   LOSSD=http://localhost:8000 ./gate.sh resnet-v7.val resnet-v6.val
set -euo pipefail
found=$(curl -fsS "${LOSSD:-http://localhost:8000}/v1/evaluations/$1?against=$2&interval=0.95&metrics=f1")
jq -e '.complete' <<< "$found" > /dev/null || { echo "$1 is not complete"; exit 1; }
jq -r '.difference["f1.macro"] | "f1.macro: \(.value), 95% from \(.interval[0]) to \(.interval[1])"' <<< "$found"
jq -e '.difference["f1.macro"].interval[1] >= 0' <<< "$found" > /dev/null || { echo "it has dropped"; exit 1; }
