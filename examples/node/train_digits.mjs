// Train a softmax classifier of real handwritten digits in plain Node.js, with loss and gradient from lossd.
//
//   node examples/node/train_digits.mjs [http://127.0.0.1:8000]
//
// The model is this file's: the forward pass (logits = x W + b), the update of its weights, the held-out
// accuracy. The loss and its gradient by the logits are the service's: POST /v1/losses/cross_entropy.

import { readFileSync } from "node:fs";
import { Lossd } from "../../clients/typescript/lib/lossd.js";

const lossd = new Lossd(process.argv[2] ?? "http://127.0.0.1:8000");
const PIXELS = 64;
const CLASSES = 10;
const EPOCHS = 20;
const BATCH = 128;
const LEARNING_RATE = 0.5;

const random = seeded(1);
const digits = shuffled(readDigits());
const heldOut = digits.slice(0, 360);
const training = digits.slice(360);

const weights = Array.from({ length: PIXELS }, () => new Array(CLASSES).fill(0));
const bias = new Array(CLASSES).fill(0);

for (let epoch = 1; epoch <= EPOCHS; epoch++) {
  const samples = shuffled(training);
  let total = 0;
  for (let start = 0; start < samples.length; start += BATCH) {
    const batch = samples.slice(start, start + BATCH);
    const inputs = { logits: batch.map(forward), targets: batch.map((digit) => digit.label) };
    const { value, gradients } = await lossd.evaluate("cross_entropy", { inputs });
    total += value.item() * batch.length;
    descend(batch, gradients.logits.nested());
  }
  const loss = (total / samples.length).toFixed(4);
  console.log(`epoch ${String(epoch).padStart(2)}  loss ${loss}  held-out accuracy ${percent(accuracy())}`);
}
if (accuracy() < 0.93) process.exit(1);

/** Return the logits of one digit. */
function forward({ pixels }) {
  return bias.map((offset, c) => pixels.reduce((sum, pixel, i) => sum + pixel * weights[i][c], offset));
}

/** Update the weights: by the chain rule, dL/dW = x^T dL/dlogits. */
function descend(batch, gradient) {
  batch.forEach(({ pixels }, n) => {
    for (let c = 0; c < CLASSES; c++) {
      bias[c] -= LEARNING_RATE * gradient[n][c];
      for (let i = 0; i < PIXELS; i++) weights[i][c] -= LEARNING_RATE * gradient[n][c] * pixels[i];
    }
  });
}

/** Return the share of held-out digits that the model names right. */
function accuracy() {
  const right = heldOut.filter((digit) => {
    const logits = forward(digit);
    return logits.indexOf(Math.max(...logits)) === digit.label;
  });
  return right.length / heldOut.length;
}

function readDigits() {
  const lines = readFileSync(new URL("../data/digits.csv", import.meta.url), "utf8").trim().split("\n");
  return lines.map((line) => {
    const numbers = line.split(",").map(Number);
    return { pixels: numbers.slice(0, PIXELS).map((grey) => grey / 16), label: numbers[PIXELS] };
  });
}

function shuffled(items) {
  const copy = [...items];
  for (let i = copy.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [copy[i], copy[j]] = [copy[j], copy[i]];
  }
  return copy;
}

/** Return a generator of numbers in [0, 1), the same for the same seed (mulberry32). */
function seeded(state) {
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}
