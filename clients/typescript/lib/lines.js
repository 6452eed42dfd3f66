/** Newline-delimited JSON: write items as lines, read lines of results. */
/** Bytes to send before the event loop may do other work. */
const TURN = 65_536;
/** Characters after which a window is sent, even if it has few lines. */
const LONG = 4_194_304;
/** Items as lines. Lines that were sent are kept until the server accepts the stream, for retries. */
export class Lines {
    #items;
    #sent = [];
    #first = 0;
    #bodies = 0;
    #accepted = false;
    #reading;
    #error;
    constructor(items) {
        this.#items = Symbol.asyncIterator in items ? items[Symbol.asyncIterator]() : items[Symbol.iterator]();
    }
    /** Return a body with all lines from the first; an earlier body gets no more lines. */
    body() {
        const own = ++this.#bodies;
        const encoder = new TextEncoder();
        let [count, bytes] = [0, 0];
        return new ReadableStream({
            pull: async (controller) => {
                // a source that never waits would keep the event loop from reading the answer
                if (bytes > TURN)
                    await new Promise((resolve) => setTimeout(resolve, (bytes = 0)));
                const line = await this.#line(count++, own);
                if (line === undefined)
                    return controller.close();
                const chunk = encoder.encode(line);
                bytes += chunk.length;
                controller.enqueue(chunk);
            },
        });
    }
    /** Stop keeping sent lines: the server has accepted the stream. */
    accept() {
        this.#accepted = true;
    }
    /** Return the next lines, fewer if they are long or at the end. */
    async take(most) {
        const lines = [];
        let line;
        let length = 0;
        this.accept();
        while (lines.length < most && length < LONG && (line = await this.#next()) !== undefined) {
            lines.push(line);
            length += line.length;
        }
        return lines;
    }
    /** Rethrow an error of the caller's iterator. */
    rethrow() {
        if (this.#error)
            throw this.#error.cause;
    }
    async close() {
        await this.#items.return?.();
    }
    async #line(place, body) {
        while (body === this.#bodies && place >= this.#first + this.#sent.length) {
            // may be awaited by an earlier body too, which the server has refused meanwhile
            this.#reading ??= this.#keep().finally(() => (this.#reading = undefined));
            if (!(await this.#reading))
                return undefined;
        }
        if (body !== this.#bodies)
            return undefined;
        const line = this.#sent[place - this.#first];
        if (this.#accepted) {
            this.#sent.splice(0, place + 1 - this.#first);
            this.#first = place + 1;
        }
        return line;
    }
    async #keep() {
        const line = await this.#next();
        if (line !== undefined)
            this.#sent.push(line);
        return line !== undefined;
    }
    async #next() {
        try {
            const { done, value } = await this.#items.next();
            if (done)
                return undefined;
            return JSON.stringify(value) + "\n";
        }
        catch (cause) {
            this.#error = { cause };
            throw cause;
        }
    }
}
/** Parse the lines of an answer as they arrive. */
export async function* parsed(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    try {
        for (let chunk; !(chunk = await reader.read()).done;) {
            const lines = (rest + chunk.value).split("\n");
            rest = lines.pop();
            for (const line of lines)
                yield JSON.parse(line);
        }
        if (rest)
            yield JSON.parse(rest);
    }
    finally {
        await reader.cancel().catch(() => { });
    }
}
