/** The problem with a refused request (RFC 9457), and when to retry. */
export class Problem extends Error {
    name = "Problem";
    type;
    title;
    status;
    detail;
    instance;
    errors;
    /** The `X-Request-ID` of the answer, by which the request is found in the server's log. */
    requestId;
    /** Seconds after which to retry, if the server says so. */
    retryAfter;
    constructor(document, headers = new Headers()) {
        const { status = 0, title = `HTTP status ${status}`, detail = title, errors = [] } = document;
        super([`${status}: ${detail}`, ...errors.map((fault) => `${fault.pointer}: ${fault.detail}`)].join("\n"));
        this.type = document.type ?? "about:blank";
        this.title = title;
        this.status = status;
        this.detail = detail;
        this.instance = document.instance;
        this.errors = errors;
        this.requestId = headers.get("X-Request-ID") ?? undefined;
        this.retryAfter = seconds(headers.get("Retry-After"));
    }
    /** Read the problem from an answer, which a proxy may have written. */
    static async of(response) {
        const text = await response.text();
        let document = {};
        try {
            if (response.headers.get("Content-Type")?.includes("json"))
                document = JSON.parse(text);
        }
        catch {
            // not JSON after all
        }
        const unknown = { status: response.status, title: response.statusText, detail: text.slice(0, 1000) };
        return new Problem({ ...unknown, ...document }, response.headers);
    }
    /** Whether the same request may succeed later. */
    get busy() {
        return this.status === 429 || this.status === 503;
    }
    /** Milliseconds until the next attempt: the server's `Retry-After`, and a random delay that grows with each attempt. */
    wait(attempt) {
        return 1000 * (this.retryAfter ?? 0) + Math.random() * Math.min(10_000, 250 * 2 ** attempt);
    }
}
/** Return the seconds of a `Retry-After`, which may be a date. */
function seconds(header) {
    if (header === null)
        return undefined;
    const found = /^\s*\d+\s*$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
    return Number.isNaN(found) ? undefined : Math.max(0, found);
}
