#!/bin/sh
# One call of the digits example in curl: the loss of three digits' logits, and its gradient by each logit.
#   sh examples/curl/one_call.sh [http://127.0.0.1:8000]
curl --silent --show-error --fail-with-body "${1:-http://127.0.0.1:8000}/v1/losses/cross_entropy" \
  --header 'Content-Type: application/json' \
  --data '{"inputs": {"logits": [[2.0, 1.0, 0.1], [0.2, 0.3, 4.0], [1.0, 1.5, 0.5]], "targets": [0, 2, 1]}}'
echo
