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

export class Problem extends Error {
  override readonly name = "Problem";
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

  constructor(document: ProblemDocument, headers = new Headers()) {
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
  static async of(response: Response): Promise<Problem> {
    const text = await response.text();
    let document: ProblemDocument = {};
    try {
      if (response.headers.get("Content-Type")?.includes("json")) document = JSON.parse(text);
    } catch {
      // not JSON after all
    }
    const unknown = { status: response.status, title: response.statusText, detail: text.slice(0, 1000) };
    return new Problem({ ...unknown, ...document }, response.headers);
  }

  /** Whether the same request may succeed later. */
  get busy(): boolean {
    return this.status === 429 || this.status === 503;
  }

  /** Milliseconds until the next attempt: the server's `Retry-After`, and a random delay that grows with each attempt. */
  wait(attempt: number): number {
    return 1000 * (this.retryAfter ?? 0) + Math.random() * Math.min(10_000, 250 * 2 ** attempt);
  }
}

/** Return the seconds of a `Retry-After`, which may be a date. */
function seconds(header: string | null): number | undefined {
  if (header === null) return undefined;
  const found = /^\s*\d+\s*$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isNaN(found) ? undefined : Math.max(0, found);
}
