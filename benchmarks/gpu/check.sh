#!/usr/bin/env bash
# Everything that needs a GPU, in one go, within BUDGET_S seconds: tests, probes, timings; the report is $OUT/report.md.
# Run it in the project's root; no network is needed. It needs torch, numpy, scipy, httpx and pytest with its
# plugins timeout and xdist, and takes the other packages from .whl (`make gpu-wheels`, 14 MB).
# DEVICE=cpu rehearses it on a machine without a GPU.
set -uo pipefail
DEVICE=${DEVICE:-cuda}
BUDGET_S=${BUDGET_S:-300}
OUT=${OUT:-$(mktemp -d)}; mkdir -p "$OUT"
SITE=$(mktemp -d)
PY=${PY:-python3}
START=$(date +%s)
left() { echo $(( BUDGET_S - ($(date +%s) - START) )); }
say() { printf '%4ds %s\n' "$(( $(date +%s) - START ))" "$*" | tee -a "$OUT/log"; }
if ls .whl/*.whl >/dev/null 2>&1; then
  $PY -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$SITE" .whl/*.whl 2>>"$OUT/log" || { say "pip failed"; exit 1; }
fi
export PYTHONPATH=$SITE:$PWD PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
say "set up"
{ nvidia-smi --query-gpu=name,driver_version,memory.total,pcie.link.gen.max,pcie.link.width.max --format=csv 2>/dev/null
  $PY -c 'import sys, torch, numpy; print("Python", sys.version.split()[0], "torch", torch.__version__, "numpy", numpy.__version__, "CUDA", torch.cuda.is_available())'
  echo "$(nproc) cores, $(date -u +%F)"; } | tee "$OUT/machine.txt"

# 1. the project's own tests that need a device
if [ "$DEVICE" != cpu ]; then
  timeout -k 5 $(( BUDGET_S * 2 / 5 )) $PY -m pytest tests/gpu/test_cuda.py -q -n 12 -p no:cacheprovider -o filterwarnings=default --timeout 60 --tb=line --junit-xml "$OUT/gpu-tests.xml" >"$OUT/gpu-tests.txt" 2>&1
  say "pytest: rc $? $(tail -1 "$OUT/gpu-tests.txt")"
fi
# 2. probes of the engine: numbers, waits, bits, steps, copies, threads, crossover, graphs, faults
timeout -k 5 "$(( $(left) - BUDGET_S / 4 ))" $PY -m benchmarks.gpu.probe "$DEVICE" "$OUT/probe.md" >"$OUT/probe.txt" 2>&1
say "probe: rc $? $(tail -1 "$OUT/probe.txt")"
# 3. the server: one table for the CPU and the GPU of this machine
timeout -k 5 "$(left)" $PY -m benchmarks.gpu.serve "$DEVICE" "$OUT/serve.md" >"$OUT/serve.txt" 2>&1
say "serve: rc $? $(tail -1 "$OUT/serve.txt")"
{ echo "# GPU report"; cat "$OUT/machine.txt"; echo; cat "$OUT/log"; echo
  grep -E '^(FAILED|ERROR)|Error|passed|failed' "$OUT/gpu-tests.txt" 2>/dev/null | cut -c1-300 | tail -60
  echo; cat "$OUT/probe.md" 2>/dev/null || tail -20 "$OUT/probe.txt"; echo; cat "$OUT/serve.md" 2>/dev/null || tail -20 "$OUT/serve.txt"; } >"$OUT/report.md"
rm -f "$OUT/log" "$OUT/machine.txt" "$OUT"/*.cpu.log
tail -c 9000 "$OUT/report.md"
