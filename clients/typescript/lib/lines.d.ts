/** Newline-delimited JSON: write items as lines, read lines of results. */
/** Items as lines. Lines that were sent are kept until the server accepts the stream, for retries. */
export declare class Lines {
    #private;
    constructor(items: Iterable<unknown> | AsyncIterable<unknown>);
    /** Return a body with all lines from the first; an earlier body gets no more lines. */
    body(): ReadableStream<Uint8Array>;
    /** Stop keeping sent lines: the server has accepted the stream. */
    accept(): void;
    /** Return the next lines, fewer if they are long or at the end. */
    take(most: number): Promise<string[]>;
    /** Rethrow an error of the caller's iterator. */
    rethrow(): void;
    close(): Promise<void>;
}
/** Parse the lines of an answer as they arrive. */
export declare function parsed(response: Response): AsyncGenerator<any, void>;
