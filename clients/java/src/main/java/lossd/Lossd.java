package lossd;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.net.http.HttpTimeoutException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.Spliterator;
import java.util.Spliterators;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Consumer;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import lossd.Evaluation.Batch;
import lossd.Evaluation.Result;
import lossd.Request.Item;

/**
 * Client of lossd: loss values and exact gradients over HTTP. It is immutable, and several threads may use it at
 * once. Calls block; interrupting the thread cancels them. They throw a {@link Problem} if the server refuses, and an
 * {@link HttpTimeoutException} if an answer takes too long.
 */
public final class Lossd {
  private static final int WINDOW_CHARACTERS = 1 << 22;

  private final String base;
  private String key;
  private String requestId;
  private Duration timeout = Duration.ofSeconds(60);
  private int retries = 4;
  private int window = 256;
  private HttpClient http;

  /** A client of the server at an address such as {@code http://127.0.0.1:8000}. */
  public Lossd(String base) {
    this(base.replaceAll("/+$", ""), HttpClient.newHttpClient());
  }

  private Lossd(String base, HttpClient http) {
    this.base = base;
    this.http = http;
  }

  private Lossd with(Consumer<Lossd> change) {
    Lossd changed = new Lossd(base, http);
    changed.key = key;
    changed.requestId = requestId;
    changed.timeout = timeout;
    changed.retries = retries;
    changed.window = window;
    change.accept(changed);
    return changed;
  }

  /** Sent as {@code X-API-Key}. */
  public Lossd withKey(String key) {
    return with(changed -> changed.key = key);
  }

  /** Sent as {@code X-Request-ID}, which the server logs. */
  public Lossd withRequestId(String requestId) {
    return with(changed -> changed.requestId = requestId);
  }

  /** Timeout of a call including all retries, by default a minute; sent to the server as {@code Request-Timeout}. */
  public Lossd withTimeout(Duration timeout) {
    return with(changed -> changed.timeout = timeout);
  }

  /** Retries after a 429 or 503, 4 by default. */
  public Lossd withRetries(int retries) {
    return with(changed -> changed.retries = retries);
  }

  /** Most items of a stream to send at once, 256 by default. */
  public Lossd withWindow(int items) {
    return with(changed -> changed.window = items);
  }

  public Lossd withHttpClient(HttpClient http) {
    return with(changed -> changed.http = http);
  }

  /** Evaluate one loss. */
  public Evaluation evaluate(String loss, Request request) throws IOException, InterruptedException {
    String name = URLEncoder.encode(loss, StandardCharsets.UTF_8).replace("+", "%20");
    return Evaluation.from(Json.map(call("/v1/losses/" + name, request.fields)));
  }

  /** Evaluate many items in one request, with results in the same order. */
  public Batch batch(List<Item> items) throws IOException, InterruptedException {
    return batch(items, Request.defaults());
  }

  /** Evaluate many items in one request; the defaults apply to items that do not set their own. */
  public Batch batch(List<Item> items, Request defaults) throws IOException, InterruptedException {
    List<Map<String, Object>> sent = items.stream().map(Item::json).toList();
    return Batch.from(Json.map(call("/v1/batch", Map.of("items", sent, "defaults", defaults.fields))));
  }

  /**
   * Evaluate any number of items, with results in the same order, in bounded memory. Java's client cannot read an answer while
   * it sends, so items are sent in windows: the first has one item, each of the next is twice as long. A bad item gives a
   * result with a problem, and the stream continues. Errors that end the stream are thrown as {@link UncheckedIOException}.
   */
  public Stream<Result> stream(Iterator<Item> items) {
    Iterator<Result> results = new Results(items);
    return StreamSupport.stream(Spliterators.spliteratorUnknownSize(results, Spliterator.ORDERED), false);
  }

  /** Post JSON (maps, lists, strings, numbers and booleans) to any path, or get the path if the body is null. */
  public Object call(String path, Object body) throws IOException, InterruptedException {
    return Json.parse(send(path, "application/json", body == null ? null : Json.write(body)));
  }

  /** Send a request, with retries if the server is busy; return a successful answer. */
  private String send(String path, String type, String body) throws IOException, InterruptedException {
    long due = System.nanoTime() + timeout.toNanos();
    for (int attempt = 0; ; attempt++) {
      HttpResponse<String> response = attempt(path, type, body, due - System.nanoTime());
      if (response.statusCode() < 300) return response.body();
      Problem problem = Problem.of(response);
      Duration pause = problem.pause(attempt);
      boolean late = pause.toNanos() > due - System.nanoTime();
      if (!problem.busy() || attempt >= retries || late) throw problem;
      Thread.sleep(pause.toMillis());
    }
  }

  private HttpResponse<String> attempt(String path, String type, String body, long left)
      throws IOException, InterruptedException {
    HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(base + path));
    request.header("Request-Timeout", String.valueOf(Math.max(1, left / 1_000_000) / 1000.0));
    if (key != null) request.header("X-API-Key", key);
    if (requestId != null) request.header("X-Request-ID", requestId);
    if (body != null) request.header("Content-Type", type).POST(BodyPublishers.ofString(body));
    CompletableFuture<HttpResponse<String>> sent = http.sendAsync(request.build(), BodyHandlers.ofString());
    try {
      return sent.get(left, TimeUnit.NANOSECONDS);
    } catch (TimeoutException late) {
      throw new HttpTimeoutException("Expected an answer within " + timeout.toMillis() + " ms");
    } catch (ExecutionException failed) {
      throw failed.getCause() instanceof IOException cause ? cause : new IOException(failed.getCause());
    } finally {
      sent.cancel(true);
    }
  }

  /** Results of items that are sent in windows. */
  private final class Results implements Iterator<Result> {
    private final Iterator<Item> items;
    private final Queue<Result> ready = new ArrayDeque<>();
    private int size = 1;
    private long before;

    Results(Iterator<Item> items) {
      this.items = items;
    }

    @Override
    public boolean hasNext() {
      while (ready.isEmpty() && items.hasNext()) fill();
      return !ready.isEmpty();
    }

    @Override
    public Result next() {
      hasNext();
      return ready.remove();
    }

    private void fill() {
      StringBuilder lines = new StringBuilder();
      int count = 0;
      for (; count < size && lines.length() < WINDOW_CHARACTERS && items.hasNext(); count++) {
        lines.append(Json.write(items.next().json())).append('\n');
      }
      try {
        send("/v1/batch", "application/x-ndjson", lines.toString()).lines().map(this::read).forEach(ready::add);
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      } catch (InterruptedException interrupted) {
        Thread.currentThread().interrupt();
        throw new CancellationException("The stream was interrupted");
      }
      size = Math.min(window, 2 * size);
      before += count;
    }

    private Result read(String line) {
      Map<String, Object> json = Json.map(Json.parse(line));
      json.computeIfPresent("line", (name, number) -> before + (Long) number);
      return Result.from(json);
    }
  }
}
