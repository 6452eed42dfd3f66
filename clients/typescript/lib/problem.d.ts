/** What the server says of a request that it refuses, and when to come back (RFC 9457). */
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
    /** The `X-Request-ID` of the answer, under which the server's log has the request. */
    readonly requestId: string | undefined;
    /** Seconds after which to come back, where the server says so. */
    readonly retryAfter: number | undefined;
    constructor(document: ProblemDocument, headers?: Headers);
    /** Read the problem out of an answer, which a proxy may have written instead. */
    static of(response: Response): Promise<Problem>;
    /** Whether the same request may succeed later. */
    get busy(): boolean;
    /** Milliseconds until another try: what the server asks for, and more, by chance, with each attempt. */
    wait(attempt: number): number;
}
