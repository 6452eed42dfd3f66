/** Newline-delimited JSON, both ways. */
/** Items as lines. What was sent is kept until the server accepts the stream, for another try. */
export declare class Lines {
    #private;
    constructor(items: Iterable<unknown> | AsyncIterable<unknown>);
    /** Return a body with all lines from the first. */
    body(): ReadableStream<Uint8Array>;
    /** Keep no more of what is sent: the server has it. */
    accept(): void;
    /** Return the next lines, fewer where they are long or at the end. */
    take(most: number): Promise<string[]>;
    /** Throw what the caller's own iterator has thrown. */
    rethrow(): void;
    close(): Promise<void>;
}
/** Parse the lines of an answer as they come. */
export declare function parsed(response: Response): AsyncGenerator<any, void>;
