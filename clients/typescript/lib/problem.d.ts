/** The problem with a refused request (RFC 9457), and when to retry. */
export interface Fault {
    /** JSON Pointer into the request, such as `/inputs/targets/3`. */
    pointer: string;
    code: string;
    detail: string;
}
export interface ProblemDocument {
    type?: string;
    title?: string;
    status?: number;
    detail?: string;
    instance?: string;
    errors?: Fault[];
}
export declare class Problem extends Error {
    readonly name = "Problem";
    readonly type: string;
    readonly title: string;
    readonly status: number;
    readonly detail: string;
    readonly instance: string | undefined;
    readonly errors: Fault[];
    /** The `X-Request-ID` of the answer, by which the request is found in the server's log. */
    readonly requestId: string | undefined;
    /** Seconds after which to retry, if the server says so. */
    readonly retryAfter: number | undefined;
    constructor(document: ProblemDocument, headers?: Headers);
    /** Read the problem from an answer, which a proxy may have written. */
    static of(response: Response): Promise<Problem>;
    /** Whether the same request may succeed later. */
    get busy(): boolean;
    /** Milliseconds until the next attempt: the server's `Retry-After`, and a random delay that grows with each attempt. */
    wait(attempt: number): number;
}
