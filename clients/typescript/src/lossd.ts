/** Client of lossd: loss values and exact gradients over HTTP, in browsers and in Node 20 or newer. */

import { Lines, parsed } from "./lines.js";
import { Problem } from "./problem.js";
import { Tensor, type DType, type Nested } from "./tensor.js";
export { Problem, type Fault, type ProblemDocument } from "./problem.js";
export { Tensor, type DType, type Nested, type Numbers, type Packed } from "./tensor.js";

/** A tensor, or a number or nested arrays, which are read in the dtype that the loss takes. */
export type TensorLike = Tensor | Nested;

/** What to evaluate; the names are those of the HTTP interface. */
export interface Request {
  inputs: Record<string, TensorLike>;
  params?: Record<string, unknown>;
  reduction?: "mean" | "sum" | "none";
  sample_weight?: TensorLike;
  /** `true` (default): for every prediction; `false`: none; or for the named inputs. */
  gradients?: boolean | string[];
  grad_output?: TensorLike;
  dtype?: "float32" | "float64" | "float16" | "bfloat16";
  /** Takes the place of the divisor of a mean, so that the shards of a batch add up to its mean. */
  divide_by?: number;
}

/** One request of a batch or a stream. */
export interface Item extends Request {
  loss: string;
  /** Returned with the result; need not be unique. */
  id?: string | number;
}

export interface Evaluation {
  loss: string;
  /** Has shape `[]` for `mean` and `sum`, where NaN stands for any non-finite value. */
  value: Tensor;
  gradients: Record<string, Tensor>;
  /** Diagnostics of the loss, such as `iou` for a box loss. */
  aux: Record<string, Tensor>;
  /** What a mean divides by unless `divide_by` is set; absent under `none`, null if it is not finite. */
  divisor?: number | null;
  reduction: string;
  dtype: string;
  device: string;
  nonfinite?: Record<string, number>;
}

/** The result of one item: its evaluation, or its problem. `line` is its number in a stream, from 1. */
export type Result =
  | (Evaluation & { status: "ok"; id?: string | number; line?: number })
  | { status: "error"; id?: string | number; line?: number; error: Problem };

export interface Batch {
  results: Result[];
  succeeded: number;
  failed: number;
  summary: Record<string, { count: number; mean: number | null }>;
}

export interface Options {
  /** Cancels the call. */
  signal?: AbortSignal;
  /** Milliseconds for the call, including all retries; `Infinity` for no limit. A stream has no limit by default. */
  timeout?: number;
  /** Sent as `X-Request-ID`, which the server logs. */
  requestId?: string;
}

export interface Settings {
  apiKey?: string;
  /** Milliseconds for a call, 60,000 by default. */
  timeout?: number;
  /** Retries after a 429 or 503, 4 by default. */
  retries?: number;
  headers?: Record<string, string>;
  /** Used instead of the global `fetch`. */
  fetch?: typeof globalThis.fetch;
  /**
   * Whether `stream` sends items while results are received. The default is true in Node; most browsers cannot
   * do this, so there items are sent in windows of 256.
   */
  duplex?: boolean;
}

const JSON_TYPE = "application/json";
const LINES_TYPE = "application/x-ndjson";
const WINDOW = 256;

interface Sending {
  type: string;
  body: () => string | ReadableStream<Uint8Array> | undefined;
  options: Options;
}

export class Lossd {
  readonly #base: string;
  readonly #settings: Settings;

  /** `base` is the server's address, such as `http://127.0.0.1:8000`. */
  constructor(base: string, settings: Settings = {}) {
    this.#base = base.replace(/\/+$/, "");
    this.#settings = settings;
  }

  /** Evaluate one loss. Throws a `Problem` if the server refuses. */
  async evaluate(loss: string, request: Request, options?: Options): Promise<Evaluation> {
    const path = `/v1/losses/${encodeURIComponent(loss)}`;
    return evaluation(await this.call(path, { ...request, encoding: "base64" }, options));
  }

  /** Evaluate many items in one request, in order. `defaults` apply to items that do not set their own. */
  async batch(items: readonly Item[], defaults: Partial<Request> = {}, options?: Options): Promise<Batch> {
    const answer = await this.call("/v1/batch", { items, defaults: { ...defaults, encoding: "base64" } }, options);
    return { ...answer, results: answer.results.map(result) };
  }

  /**
   * Evaluate any number of items, with results in the order of the items, in bounded memory. Leaving the loop ends
   * the request. A bad item gives an error result, and the stream continues.
   */
  async *stream(items: Iterable<Item> | AsyncIterable<Item>, options: Options = {}): AsyncGenerator<Result, void> {
    const lines = new Lines(packed(items));
    const stop = new AbortController();
    const signal = options.signal ? AbortSignal.any([options.signal, stop.signal]) : stop.signal;
    const sending = { type: LINES_TYPE, options: { timeout: Infinity, ...options, signal } };
    try {
      if (this.#settings.duplex ?? "process" in globalThis) {
        const response = await this.#send("/v1/batch", { ...sending, body: () => lines.body() });
        lines.accept();
        for await (const line of parsed(response)) yield result(line);
      } else {
        for (let before = 0, window; (window = await lines.take(WINDOW)).length; before += window.length) {
          const body = window.join("");
          for await (const line of parsed(await this.#send("/v1/batch", { ...sending, body: () => body }))) {
            yield result("line" in line ? { ...line, line: before + line.line } : line);
          }
        }
      }
    } catch (error) {
      lines.rethrow();
      throw error;
    } finally {
      stop.abort();
      await lines.close();
    }
  }

  /** Post JSON to any path, or get the path if there is no body; return the JSON of the answer. */
  async call(path: string, body?: unknown, options: Options = {}): Promise<any> {
    const text = body === undefined ? undefined : JSON.stringify(body);
    const response = await this.#send(path, { type: JSON_TYPE, body: () => text, options });
    return response.json();
  }

  /** Send a request, with retries if the server is busy; return a successful answer. */
  async #send(path: string, sending: Sending): Promise<Response> {
    const timeout = sending.options.timeout ?? this.#settings.timeout ?? 60_000;
    const due = Date.now() + timeout;
    const signals = [sending.options.signal, timeout < Infinity ? AbortSignal.timeout(timeout) : undefined];
    const signal = AbortSignal.any(signals.filter((given) => given !== undefined));
    for (let attempt = 0; ; attempt++) {
      const response = await this.#attempt(path, sending, due, signal);
      if (response.ok) return response;
      const problem = await Problem.of(response);
      const wait = problem.wait(attempt);
      if (!problem.busy || attempt >= (this.#settings.retries ?? 4) || Date.now() + wait > due) throw problem;
      await sleep(wait, signal);
    }
  }

  #attempt(path: string, { type, body, options }: Sending, due: number, signal: AbortSignal): Promise<Response> {
    const { apiKey, headers: more, fetch = globalThis.fetch } = this.#settings;
    const headers = new Headers(more);
    if (apiKey !== undefined) headers.set("X-API-Key", apiKey);
    if (options.requestId !== undefined) headers.set("X-Request-ID", options.requestId);
    if (due < Infinity) headers.set("Request-Timeout", String(Math.max(1, due - Date.now()) / 1000));
    const sent = body();
    if (sent === undefined) return fetch(this.#base + path, { headers, signal });
    headers.set("Content-Type", type);
    // streamed bodies need `duplex`, which the types of browsers lack
    const init = { method: "POST", headers, body: sent, signal, duplex: "half" };
    return fetch(this.#base + path, init);
  }
}

/** Request exact bits for every item of a stream, which has no defaults. */
async function* packed(items: Iterable<Item> | AsyncIterable<Item>): AsyncGenerator<object, void> {
  for await (const item of items) yield { ...item, encoding: "base64" };
}

function result(line: any): Result {
  if (line.status === "error") return { ...line, error: new Problem(line.error) };
  return { ...line, ...evaluation(line) };
}

function evaluation(answer: any): Evaluation {
  return {
    ...answer,
    value: Tensor.from(answer.value, answer.dtype),
    gradients: tensors(answer.gradients, answer.dtype),
    aux: tensors(answer.aux, answer.dtype),
  };
}

function tensors(json: Record<string, any> | undefined, dtype: DType): Record<string, Tensor> {
  return Object.fromEntries(Object.entries(json ?? {}).map(([name, value]) => [name, Tensor.from(value, dtype)]));
}

function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    const end = (): void => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    signal.addEventListener("abort", end, { once: true });
    if (signal.aborted) end();
  });
}
