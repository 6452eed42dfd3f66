/** Client of lossd: loss values and exact gradients over HTTP, in browsers and in Node 20 or newer. */
import { Problem } from "./problem.js";
import { Tensor, type Nested } from "./tensor.js";
export { Problem, type Fault, type ProblemDocument } from "./problem.js";
export { Tensor, type DType, type Nested, type Numbers, type Packed } from "./tensor.js";
/** A tensor, or what JSON has for one: a number or nested arrays, read in the dtype that the loss wants. */
export type TensorLike = Tensor | Nested;
/** What to evaluate; the names are those of the HTTP interface. */
export interface Request {
    inputs: Record<string, TensorLike>;
    params?: Record<string, unknown>;
    reduction?: "mean" | "sum" | "none";
    sample_weight?: TensorLike;
    /** `true` (default): of every prediction; `false`: none; or of the inputs named. */
    gradients?: boolean | string[];
    grad_output?: TensorLike;
    dtype?: "float32" | "float64" | "float16" | "bfloat16";
    divide_by?: number;
}
/** One request of a batch or a stream. */
export interface Item extends Request {
    loss: string;
    /** Comes back with the result; need not be unique. */
    id?: string | number;
}
export interface Evaluation {
    loss: string;
    /** Of shape `[]` under `mean` and `sum`; NaN there stands for any value that is not finite. */
    value: Tensor;
    gradients: Record<string, Tensor>;
    /** Diagnostics of the loss, such as `iou` beside a box loss. */
    aux: Record<string, Tensor>;
    reduction: string;
    dtype: string;
    device: string;
    divisor?: number;
    nonfinite?: Record<string, number>;
}
/** The result of one item: its evaluation, or why there is none. `line` counts the lines of a stream from 1. */
export type Result = (Evaluation & {
    status: "ok";
    id?: string | number;
    line?: number;
}) | {
    status: "error";
    id?: string | number;
    line?: number;
    error: Problem;
};
export interface Batch {
    results: Result[];
    succeeded: number;
    failed: number;
    summary: Record<string, {
        count: number;
        mean: number | null;
    }>;
}
export interface Options {
    /** Cancels the call. */
    signal?: AbortSignal;
    /** Milliseconds for the call with all its retries; `Infinity` for no limit. A stream has none by default. */
    timeout?: number;
    /** Sent as `X-Request-ID`, which the server logs. */
    requestId?: string;
}
export interface Settings {
    apiKey?: string;
    /** Milliseconds for a call, 60,000 by default. */
    timeout?: number;
    /** How often a 429 or 503 is tried again, 4 by default. */
    retries?: number;
    headers?: Record<string, string>;
    /** Used in place of the global `fetch`. */
    fetch?: typeof globalThis.fetch;
    /**
     * Whether `stream` sends items while results come back. By default where there is Node; browsers mostly
     * cannot, so there items are sent in windows of 256.
     */
    duplex?: boolean;
}
export declare class Lossd {
    #private;
    /** `base` is the server's address, such as `http://127.0.0.1:8000`. */
    constructor(base: string, settings?: Settings);
    /** Evaluate one loss. Throws a `Problem` where the server refuses. */
    evaluate(loss: string, request: Request, options?: Options): Promise<Evaluation>;
    /** Evaluate many items in one request, in order. `defaults` hold for every item that does not say otherwise. */
    batch(items: readonly Item[], defaults?: Partial<Request>, options?: Options): Promise<Batch>;
    /**
     * Evaluate any number of items, with results in the order of the items, in bounded memory. Leaving the loop ends
     * the request. A bad item gives an error result, and the stream goes on.
     */
    stream(items: Iterable<Item> | AsyncIterable<Item>, options?: Options): AsyncGenerator<Result, void>;
    /** Post JSON to any path, or get one where there is no body; return the answer's JSON. */
    call(path: string, body?: unknown, options?: Options): Promise<any>;
}
