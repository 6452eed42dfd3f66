// node --test clients/typescript/test, with the address of a server in LOSSD_URL
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { test } from "node:test";
import { Lossd, Problem, Tensor } from "lossd";

const cases = JSON.parse(readFileSync(new URL("../../cases.json", import.meta.url), "utf8"));
const lossd = new Lossd(process.env.LOSSD_URL, { apiKey: process.env.LOSSD_KEY });
const inputsOf = (prediction) => ({ inputs: { predictions: [prediction], targets: [0] } });
const mse = (prediction) => ({ loss: "mse", ...inputsOf(prediction) });

/** `Array.fromAsync`, which Node 20 lacks. */
async function all(iterable) {
  const found = [];
  for await (const one of iterable) found.push(one);
  return found;
}

/** Create tensors from packed ones, from their plain numbers if these are exact. */
function unpacked(request) {
  const tensor = (packed) => {
    const read = Tensor.from(packed);
    if (read.dtype === "float16") return read;
    const made = read.data.constructor.from(read.numbers(), read.dtype === "int64" ? BigInt : Number);
    return new Tensor(made, packed.shape, packed.dtype);
  };
  const entries = Object.entries(request).map(([key, value]) => [key, value?.data === undefined ? value : tensor(value)]);
  const inputs = Object.entries(request.inputs).map(([key, value]) => [key, tensor(value)]);
  return { ...Object.fromEntries(entries), inputs: Object.fromEntries(inputs) };
}

function check(found, { loss, answer }) {
  const { value, gradients, aux, divisor = null } = JSON.parse(JSON.stringify(found));
  assert.equal(found.loss, loss);
  assert.deepEqual({ value, gradients, aux, divisor }, answer);
}

function checkFaults(problem, { faults }) {
  assert.ok(problem instanceof Problem);
  assert.equal(problem.status, 422);
  assert.deepEqual(problem.errors.map(({ pointer, code }) => ({ pointer, code })), faults);
}

for (const expected of cases) {
  test(`evaluate: ${expected.name}`, async () => {
    const evaluating = lossd.evaluate(expected.loss, unpacked(expected.request));
    if (expected.answer) check(await evaluating, expected);
    else await assert.rejects(evaluating, (problem) => (checkFaults(problem, expected), true));
  });
}

const items = cases.map(({ name, loss, request }) => ({ id: name, loss, ...unpacked(request) }));

function checkAll(results) {
  assert.deepEqual(results.map(({ id }) => id), cases.map(({ name }) => name));
  results.forEach((result, i) => {
    assert.equal(result.status, cases[i].answer ? "ok" : "error");
    if (result.status === "ok") check(result, cases[i]);
    else checkFaults(result.error, cases[i]);
  });
}

test("a batch gives what its items give alone", async () => {
  const { results, succeeded, failed, summary } = await lossd.batch(items);
  checkAll(results);
  assert.deepEqual([succeeded, failed], [cases.length - 1, 1]);
  assert.equal(summary.huber.count, 1);
});

test("a batch's defaults hold", async () => {
  const inputs = { predictions: [5], targets: [0] };
  const defaults = { params: { delta: 3 }, gradients: false };
  const { results } = await lossd.batch([{ loss: "huber", inputs }, { loss: "huber", inputs, params: {} }], defaults);
  assert.deepEqual(results.map((result) => result.value.item()), [10.5, 10.5]);
  assert.deepEqual(results[0].gradients, {});
});

for (const duplex of [true, false]) {
  const streaming = new Lossd(process.env.LOSSD_URL, { apiKey: process.env.LOSSD_KEY, duplex });

  test(`a stream gives what its items give alone, duplex ${duplex}`, async () => {
    checkAll(await all(streaming.stream(items)));
  });

  test(`a long stream comes back in order, duplex ${duplex}`, async () => {
    function* many() {
      for (let id = 0; id < 2000; id++) yield { id, ...mse(id) };
    }
    let next = 0;
    for await (const { id, value } of streaming.stream(many())) {
      assert.equal(id, next);
      assert.equal(value.item(), Math.fround(next * next));
      next++;
    }
    assert.equal(next, 2000);
  });

  test(`leaving a stream's loop ends its source, duplex ${duplex}`, async () => {
    let closed = 0;
    async function* endless() {
      try {
        while (true) yield mse(1);
      } finally {
        closed++;
      }
    }
    for await (const { value } of streaming.stream(endless())) {
      assert.equal(value.item(), 1);
      break;
    }
    assert.equal(closed, 1);
  });

  test(`an error of a stream's source is thrown as it is, duplex ${duplex}`, async () => {
    async function* broken() {
      yield mse(1);
      throw new Error("out of items");
    }
    await assert.rejects(all(streaming.stream(broken())), { message: "out of items" });
  });
}

test("a stream has results while its items are still made", async () => {
  let release;
  const answered = new Promise((resolve) => (release = resolve));
  async function* waiting() {
    yield mse(1);
    await answered;
    yield mse(2);
  }
  const values = [];
  for await (const { value } of lossd.stream(waiting())) {
    values.push(value.item());
    release();
  }
  assert.deepEqual(values, [1, 4]);
});

test("a value beyond its dtype is NaN, counted", async () => {
  const { value, nonfinite } = await lossd.evaluate("mse", { inputs: { predictions: [1e39], targets: [0] } });
  assert.ok(Number.isNaN(value.item()));
  assert.equal(nonfinite.value, 1);
});

test("an unknown loss is a problem that names the closest", async () => {
  const options = { requestId: "from-node" };
  await assert.rejects(lossd.evaluate("msee", { inputs: {} }, options), (problem) => {
    assert.equal(problem.status, 404);
    assert.match(problem.detail, /mse/);
    assert.equal(problem.requestId, "from-node");
    return true;
  });
});

test("a wrong key is a problem", { skip: !process.env.LOSSD_KEY }, async () => {
  const stranger = new Lossd(process.env.LOSSD_URL, { apiKey: "wrong" });
  await assert.rejects(stranger.evaluate("mse", inputsOf(1)), { status: 401 });
});

test("call reaches everything else", async () => {
  const { name } = await lossd.call("/v1/losses/huber");
  assert.equal(name, "huber");
});

/** Serve a handler until the test ends. */
async function serving(t, handler) {
  const server = createServer(handler).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  t.after(() => (server.closeAllConnections(), server.close()));
  return `http://127.0.0.1:${server.address().port}`;
}

/** Refuse some requests, then pass the others on to the real server. */
async function refusing(t, refusals, status = 429, headers = { "Retry-After": "0" }) {
  const times = [];
  const url = await serving(t, async (request, response) => {
    times.push(Date.now());
    if (times.length <= refusals) {
      response.writeHead(status, { "Content-Type": "application/problem+json", ...headers });
      response.end(JSON.stringify({ type: "urn:lossd:problem:busy", title: "Busy", status, detail: "Come back." }));
      return;
    }
    const passed = await fetch(process.env.LOSSD_URL + request.url, {
      method: request.method,
      headers: { "Content-Type": request.headers["content-type"], "X-API-Key": request.headers["x-api-key"] ?? "" },
      body: request,
      duplex: "half",
    });
    response.writeHead(passed.status, { "Content-Type": passed.headers.get("Content-Type") });
    for await (const chunk of passed.body) response.write(chunk);
    response.end();
  });
  return { client: new Lossd(url, { apiKey: process.env.LOSSD_KEY }), times };
}

for (const status of [429, 503]) {
  test(`a ${status} is tried again after Retry-After`, async (t) => {
    const { client, times } = await refusing(t, 1, status, { "Retry-After": "1" });
    const { value } = await client.evaluate("mse", inputsOf(3));
    assert.equal(value.item(), 9);
    assert.equal(times.length, 2);
    assert.ok(times[1] - times[0] >= 990, `${times[1] - times[0]} ms`);
  });
}

test("a stream that is refused starts again with its first item", async (t) => {
  const { client, times } = await refusing(t, 2);
  checkAll(await all(client.stream(items)));
  assert.equal(times.length, 3);
});

test("a stream that is refused loses no item that is made later", async (t) => {
  const { client, times } = await refusing(t, 2, 503);
  let receive;
  async function* made() {
    for (let index = 0; index < 3; index++) {
      const received = new Promise((resolve) => (receive = resolve));
      yield { loss: "mse", ...inputsOf(index) };
      await received;
    }
  }
  const values = [];
  for await (const { value } of client.stream(made())) {
    values.push(value.item());
    receive();
  }
  assert.deepEqual(values, [0, 1, 4]);
  assert.equal(times.length, 3);
});

test("a server that stays busy is a problem in the end", async (t) => {
  const { client, times } = await refusing(t, Infinity);
  await assert.rejects(client.evaluate("mse", inputsOf(1)), { status: 429, retryAfter: 0 });
  assert.equal(times.length, 5);
});

test("no try is made that would come too late", async (t) => {
  const { client, times } = await refusing(t, Infinity, 503, { "Retry-After": "3600" });
  await assert.rejects(client.evaluate("mse", inputsOf(1)), { status: 503, retryAfter: 3600 });
  assert.equal(times.length, 1);
});

test("a call that takes too long is given up, and the server is told how long it has", async (t) => {
  let header;
  const url = await serving(t, (request) => (header = request.headers["request-timeout"]));
  await assert.rejects(new Lossd(url).evaluate("mse", inputsOf(1), { timeout: 200 }), { name: "TimeoutError" });
  assert.ok(Number(header) > 0 && Number(header) <= 0.2, header);
});

test("a call and a wait can be cancelled", async (t) => {
  const url = await serving(t, () => {});
  const signal = () => AbortSignal.any([AbortSignal.abort(new Error("no more")), new AbortController().signal]);
  await assert.rejects(new Lossd(url).evaluate("mse", inputsOf(1), { signal: signal() }), { message: "no more" });
  const { client } = await refusing(t, Infinity, 503, { "Retry-After": "30" });
  const controller = new AbortController();
  setTimeout(() => controller.abort(new Error("enough")), 200);
  await assert.rejects(client.evaluate("mse", inputsOf(1), { signal: controller.signal }), { message: "enough" });
});

test("what a proxy says in another format is a problem too", async (t) => {
  const url = await serving(t, (_, response) => response.writeHead(502).end("<h1>Bad gateway</h1>"));
  await assert.rejects(new Lossd(url).evaluate("mse", inputsOf(1)), { status: 502, detail: "<h1>Bad gateway</h1>" });
});

test("tensors are made of nested arrays and give them back", () => {
  const made = Tensor.of([[1, 2, 3], [4, 5, 6]], "float64");
  assert.deepEqual([made.shape, made.dtype], [[2, 3], "float64"]);
  assert.deepEqual(made.nested(), [[1, 2, 3], [4, 5, 6]]);
  assert.deepEqual(Tensor.of([[[], []]]).shape, [1, 2, 0]);
  assert.deepEqual(Tensor.of([[[], []]]).nested(), [[[], []]]);
  assert.deepEqual(Tensor.of([true, false], "bool").numbers(), [1, 0]);
  assert.equal(Tensor.of(2.5).item(), 2.5);
  assert.throws(() => Tensor.of([[1, 2], [3]]), RangeError);
  assert.throws(() => new Tensor(new Float32Array(5), [2, 3]), RangeError);
});

test("half types are read as the numbers that they are", () => {
  const float16 = new Tensor(Uint16Array.of(0x3c00, 0xc000, 0x0001, 0x7c00, 0x3555), [5], "float16");
  assert.deepEqual(float16.numbers(), [1, -2, 2 ** -24, Infinity, 0.333251953125]);
  assert.deepEqual(new Tensor(Uint16Array.of(0x3f80, 0xc040), [2], "bfloat16").numbers(), [1, -3]);
});
