/** Client of lossd: loss values and exact gradients over HTTP, in browsers and in Node 20 or newer. */
import { Problem } from "./problem.js";
import { Tensor, type Nested } from "./tensor.js";
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
export declare class Lossd {
    #private;
    /** `base` is the server's address, such as `http://127.0.0.1:8000`. */
    constructor(base: string, settings?: Settings);
    /** Evaluate one loss. Throws a `Problem` if the server refuses. */
    evaluate(loss: string, request: Request, options?: Options): Promise<Evaluation>;
    /** Evaluate many items in one request, in order. `defaults` apply to items that do not set their own. */
    batch(items: readonly Item[], defaults?: Partial<Request>, options?: Options): Promise<Batch>;
    /**
     * Evaluate any number of items, with results in the order of the items, in bounded memory. Leaving the loop ends
     * the request. A bad item gives an error result, and the stream continues.
     */
    stream(items: Iterable<Item> | AsyncIterable<Item>, options?: Options): AsyncGenerator<Result, void>;
    /** Post JSON to any path, or get the path if there is no body; return the JSON of the answer. */
    call(path: string, body?: unknown, options?: Options): Promise<any>;
}
