package lossd;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpTimeoutException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import lossd.Evaluation.Batch;
import lossd.Evaluation.Result;
import lossd.Request.Item;

/** {@code java lossd.LossdCheck clients/cases.json}, with the address of a server in LOSSD_URL and a key for it in LOSSD_KEY. */
final class LossdCheck {
  private interface Check {
    void run() throws Exception;
  }

  private static final String URL = System.getenv("LOSSD_URL");
  private static final String KEY = System.getenv("LOSSD_KEY");
  private static final Map<String, Check> CHECKS = new LinkedHashMap<>();

  private final Lossd lossd = new Lossd(URL + "/").withKey(KEY);
  private final List<Map<String, Object>> cases;

  LossdCheck(Path table) throws IOException {
    cases = Json.list(Json.parse(Files.readString(table))).stream().map(Json::map).toList();
  }

  public static void main(String[] words) throws Exception {
    new LossdCheck(Path.of(words[0])).declare();
    int failed = 0;
    for (Map.Entry<String, Check> check : CHECKS.entrySet()) {
      try {
        check.getValue().run();
      } catch (Exception | AssertionError error) {
        failed++;
        System.out.println("FAILED " + check.getKey());
        error.printStackTrace(System.out);
      }
    }
    System.out.println(CHECKS.size() - failed + " passed, " + failed + " failed");
    System.exit(failed == 0 ? 0 : 1);
  }

  private void declare() {
    for (Map<String, Object> expected : cases) CHECKS.put("evaluate: " + expected.get("name"), () -> evaluate(expected));
    CHECKS.put("a batch gives what its items give alone", this::batch);
    CHECKS.put("the defaults of a batch hold", this::defaults);
    CHECKS.put("a stream gives what its items give alone", () -> checkAll(lossd.stream(items().iterator()).toList()));
    CHECKS.put("a long stream comes back in order, and is taken as it goes", this::longStream);
    CHECKS.put("a window gives the lines of its faults their place in the stream", this::lines);
    CHECKS.put("a value beyond its dtype is NaN, and counted", this::beyond);
    CHECKS.put("an unknown loss is a problem", this::unknown);
    CHECKS.put("a wrong key is a problem", () -> equal(problem(lossd.withKey("wrong")).status(), 401));
    CHECKS.put("call reaches everything else", this::call);
    CHECKS.put("a 429 is tried again after Retry-After", () -> busy(429));
    CHECKS.put("a 503 is tried again after Retry-After", () -> busy(503));
    CHECKS.put("a stream that is refused starts again with its first item", this::refusedStream);
    CHECKS.put("a server that stays busy is a problem in the end", this::alwaysBusy);
    CHECKS.put("no try is made that would come too late", this::tooLate);
    CHECKS.put("a call that takes too long is given up, and the server knows", this::timeout);
    CHECKS.put("an interrupt cancels a call", this::interrupt);
    CHECKS.put("what a proxy says is a problem too", this::proxy);
    CHECKS.put("a default client's offer of HTTP/2 loses no body", this::upgrade);
    CHECKS.put("half types are read as the numbers that they are", this::half);
    CHECKS.put("numbers must fit their shape", this::misfit);
    CHECKS.put("JSON survives a round trip", this::json);
  }

  private static void equal(Object found, Object expected) {
    if (!Objects.deepEquals(found, expected)) throw new AssertionError("expected " + expected + "; got " + found);
  }

  private static Map<String, Tensor> tensors(Object json) {
    Map<String, Tensor> found = new LinkedHashMap<>();
    Json.map(json).forEach((name, packed) -> found.put(name, Tensor.from(packed, "float32")));
    return found;
  }

  /** Create a tensor from the numbers of another. */
  private static Tensor again(Tensor tensor) {
    if (tensor.dtype().equals("float32")) return shaped(tensor, Tensor.of(tensor.floats()));
    if (tensor.dtype().equals("float64")) return shaped(tensor, Tensor.of(tensor.doubles()));
    if (tensor.dtype().equals("int64")) return shaped(tensor, Tensor.of(tensor.longs()));
    return tensor;
  }

  private static Tensor shaped(Tensor original, Tensor flat) {
    equal(flat.bytes(), original.bytes());
    return Tensor.packed(flat.dtype(), original.shape(), flat.bytes());
  }

  private static Request request(Map<String, Object> json) {
    Map<String, Tensor> inputs = new LinkedHashMap<>();
    tensors(json.get("inputs")).forEach((name, tensor) -> inputs.put(name, again(tensor)));
    Request request = Request.of(inputs);
    if (json.containsKey("params")) request = request.params(Json.map(json.get("params")));
    if (json.containsKey("reduction")) request = request.reduction((String) json.get("reduction"));
    if (json.containsKey("dtype")) request = request.dtype((String) json.get("dtype"));
    if (json.get("divide_by") instanceof Double number) request = request.divideBy(number);
    Tensor weight = tensors(json.containsKey("sample_weight") ? Map.of("w", json.get("sample_weight")) : null).get("w");
    if (weight != null) request = request.sampleWeight(again(weight));
    Tensor upstream = tensors(json.containsKey("grad_output") ? Map.of("g", json.get("grad_output")) : null).get("g");
    if (upstream != null) request = request.gradOutput(again(upstream));
    Object gradients = json.get("gradients");
    if (gradients instanceof Boolean wanted) request = request.gradients(wanted);
    if (gradients instanceof List<?> names) request = request.gradients(names.toArray(String[]::new));
    return request;
  }

  private List<Item> items() {
    return cases.stream().map(c -> request(Json.map(c.get("request"))).item(c.get("name"), (String) c.get("loss"))).toList();
  }

  private static void check(Map<String, Object> expected, Evaluation found) {
    Map<String, Object> answer = Json.map(expected.get("answer"));
    equal(found.loss(), expected.get("loss"));
    equal(found.value(), Tensor.from(answer.get("value"), "float32"));
    equal(found.divisor(), answer.get("divisor"));
    equal(found.gradients(), tensors(answer.get("gradients")));
    equal(found.aux(), tensors(answer.get("aux")));
  }

  private static void checkFaults(Map<String, Object> expected, Problem problem) {
    equal(problem.status(), 422);
    List<Map<String, String>> faults =
        problem.errors().stream().map(fault -> Map.of("pointer", fault.pointer(), "code", fault.code())).toList();
    equal(faults, expected.get("faults"));
  }

  private void checkAll(List<Result> results) {
    equal(results.size(), cases.size());
    for (int i = 0; i < results.size(); i++) {
      Map<String, Object> expected = cases.get(i);
      equal(results.get(i).id(), expected.get("name"));
      equal(results.get(i).ok(), expected.containsKey("answer"));
      if (results.get(i).ok()) check(expected, results.get(i).evaluation());
      else checkFaults(expected, results.get(i).problem());
    }
  }

  private void evaluate(Map<String, Object> expected) throws Exception {
    try {
      check(expected, lossd.evaluate((String) expected.get("loss"), request(Json.map(expected.get("request")))));
    } catch (Problem problem) {
      checkFaults(expected, problem);
    }
  }

  private void batch() throws Exception {
    Batch batch = lossd.batch(items());
    checkAll(batch.results());
    equal(List.of(batch.succeeded(), batch.failed()), List.of(cases.size() - 1L, 1L));
    equal(Json.map(batch.summary().get("huber")).get("count"), 1L);
  }

  private void defaults() throws Exception {
    Request five = Request.of(Map.of("predictions", new double[] {5}, "targets", List.of(0)));
    List<Item> items = List.of(five.item(null, "huber"), five.params(Map.of()).item(null, "huber"));
    Request defaults = Request.defaults().params(Map.of("delta", 3)).gradients(false);
    for (Result result : lossd.batch(items, defaults).results()) {
      equal(result.evaluation().value().item(), 10.5);
      equal(result.evaluation().gradients(), Map.of());
    }
  }

  private static Request mse(Object prediction) {
    return Request.of(Map.of("predictions", List.of(prediction), "targets", new int[] {0}));
  }

  private void longStream() {
    AtomicInteger taken = new AtomicInteger();
    Iterator<Item> items =
        IntStream.range(0, 2000).peek(taken::set).mapToObj(i -> mse(i).item(i, "mse")).iterator();
    List<Object> ids = new ArrayList<>();
    lossd.stream(items).forEach(
        result -> {
          if (ids.isEmpty() && taken.get() > 2) throw new AssertionError(taken + " taken before the first result");
          equal(result.evaluation().value().item(), (double) (float) ((Long) result.id() * (Long) result.id()));
          ids.add(result.id());
        });
    equal(ids, IntStream.range(0, 2000).mapToObj(i -> (long) i).toList());
  }

  private void lines() {
    Stream<Item> items = IntStream.range(0, 9).mapToObj(i -> mse(i == 6 ? "?" : i).item(i, "mse"));
    List<Result> failed = lossd.stream(items.iterator()).filter(result -> !result.ok()).toList();
    equal(failed.size(), 1);
    equal(failed.get(0).id(), 6L);
    equal(failed.get(0).problem().errors().get(0).pointer(), "/inputs/predictions/0");
    if (failed.get(0).line() != null) equal(failed.get(0).line(), 7L);
  }

  private void beyond() throws Exception {
    Evaluation found = lossd.evaluate("mse", mse(1e39));
    equal(found.value(), Tensor.scalar(Float.NaN));
    equal(found.nonfinite().get("value"), 1L);
  }

  private static Problem problem(Lossd lossd) throws Exception {
    try {
      lossd.evaluate("mse", mse(1));
    } catch (Problem problem) {
      return problem;
    }
    throw new AssertionError("no problem");
  }

  private void unknown() throws Exception {
    try {
      lossd.withRequestId("from-java").evaluate("ms e/ü", mse(1));
      throw new AssertionError("no problem");
    } catch (Problem problem) {
      equal(problem.status(), 404);
      equal(problem.requestId(), "from-java");
    }
  }

  private void call() throws Exception {
    equal(Json.map(lossd.call("/v1/losses/huber", null)).get("name"), "huber");
  }

  private interface Handler {
    void handle(HttpExchange exchange) throws Exception;
  }

  /** Serve a handler while a check runs. */
  private static void serving(Handler handler, ServerCheck check) throws Exception {
    HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
    server.setExecutor(Executors.newCachedThreadPool(LossdCheck::daemon));
    server.createContext(
        "/",
        exchange -> {
          try {
            handler.handle(exchange);
          } catch (Exception error) {
            throw new IOException(error);
          }
        });
    server.start();
    try {
      check.run(new Lossd("http://127.0.0.1:" + server.getAddress().getPort()).withKey(KEY));
    } finally {
      server.stop(0);
    }
  }

  private static Thread daemon(Runnable task) {
    Thread thread = new Thread(task);
    thread.setDaemon(true);
    return thread;
  }

  private interface ServerCheck {
    void run(Lossd lossd) throws Exception;
  }

  /** Refuse some requests, then pass the others on to the real server. */
  private static Handler refusing(AtomicInteger calls, int refusals, int status, String retryAfter) {
    HttpClient http = HttpClient.newHttpClient();
    return exchange -> {
      byte[] body = exchange.getRequestBody().readAllBytes();
      if (calls.incrementAndGet() <= refusals) {
        exchange.getResponseHeaders().add("Retry-After", retryAfter);
        exchange.getResponseHeaders().add("Content-Type", "application/problem+json");
        answer(exchange, status, "{\"title\": \"Busy\", \"detail\": \"Come back.\", \"status\": " + status + "}");
        return;
      }
      HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(URL + exchange.getRequestURI()));
      request.header("Content-Type", exchange.getRequestHeaders().getFirst("Content-Type"));
      if (KEY != null) request.header("X-API-Key", KEY);
      request.POST(HttpRequest.BodyPublishers.ofByteArray(body));
      HttpResponse<String> real = http.send(request.build(), HttpResponse.BodyHandlers.ofString());
      answer(exchange, real.statusCode(), real.body());
    };
  }

  private static void answer(HttpExchange exchange, int status, String text) throws IOException {
    byte[] body = text.getBytes(StandardCharsets.UTF_8);
    exchange.sendResponseHeaders(status, body.length);
    exchange.getResponseBody().write(body);
    exchange.close();
  }

  private void busy(int status) throws Exception {
    AtomicInteger calls = new AtomicInteger();
    long start = System.nanoTime();
    serving(
        refusing(calls, 1, status, "1"),
        refused -> equal(refused.evaluate("mse", mse(3)).value().item(), 9.0));
    equal(calls.get(), 2);
    if (System.nanoTime() - start < 1_000_000_000L) throw new AssertionError("too early");
  }

  private void refusedStream() throws Exception {
    AtomicInteger calls = new AtomicInteger();
    serving(refusing(calls, 2, 429, "0"), refused -> checkAll(refused.stream(items().iterator()).toList()));
  }

  private void alwaysBusy() throws Exception {
    AtomicInteger calls = new AtomicInteger();
    serving(refusing(calls, 99, 429, "0"), refused -> equal(problem(refused).status(), 429));
    equal(calls.get(), 5);
    serving(
        refusing(calls, 99, 429, "0"),
        refused -> {
          try {
            refused.withRetries(0).stream(items().iterator()).toList();
            throw new AssertionError("no problem");
          } catch (UncheckedIOException error) {
            equal(((Problem) error.getCause()).busy(), true);
          }
        });
  }

  private void tooLate() throws Exception {
    AtomicInteger calls = new AtomicInteger();
    String hence = DateTimeFormatter.RFC_1123_DATE_TIME.format(ZonedDateTime.now(ZoneOffset.UTC).plusHours(1));
    serving(
        refusing(calls, 99, 503, hence),
        refused -> {
          if (problem(refused).retryAfter().compareTo(Duration.ofMinutes(59)) < 0) throw new AssertionError("soon");
        });
    equal(calls.get(), 1);
  }

  private void timeout() throws Exception {
    AtomicReference<String> header = new AtomicReference<>();
    serving(
        exchange -> {
          header.set(exchange.getRequestHeaders().getFirst("Request-Timeout"));
          Thread.sleep(5000);
        },
        slow -> {
          try {
            slow.withTimeout(Duration.ofMillis(300)).evaluate("mse", mse(1));
            throw new AssertionError("no timeout");
          } catch (HttpTimeoutException expected) {
            double seconds = Double.parseDouble(header.get());
            if (seconds <= 0 || seconds > 0.3) throw new AssertionError(header.get());
          }
        });
  }

  private void interrupt() throws Exception {
    serving(
        exchange -> Thread.sleep(5000),
        slow -> {
          AtomicReference<Exception> ended = new AtomicReference<>();
          Thread thread = new Thread(() -> ended.set(caught(() -> slow.evaluate("mse", mse(1)))));
          thread.start();
          Thread.sleep(200);
          thread.interrupt();
          thread.join(2000);
          equal(ended.get() instanceof InterruptedException, true);
        });
  }

  private static Exception caught(Check check) {
    try {
      check.run();
      return null;
    } catch (Exception error) {
      return error;
    }
  }

  private void proxy() throws Exception {
    serving(
        exchange -> answer(exchange, 502, "<h1>Bad gateway</h1>"),
        broken -> equal(List.of(problem(broken).status(), problem(broken).detail()), List.of(502, "<h1>Bad gateway</h1>")));
  }

  /** Java's default client, which sends {@code Upgrade: h2c} with its first request. */
  private void upgrade() throws Exception {
    String body = Json.write(Map.of("inputs", Map.of("predictions", new int[20_000], "targets", new int[20_000])));
    for (int i = 0; i < 3; i++) {
      HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(URL + "/v1/losses/mse"));
      request.header("Content-Type", "application/json").header("X-API-Key", KEY == null ? "" : KEY);
      HttpRequest sent = request.POST(HttpRequest.BodyPublishers.ofString(body)).build();
      HttpResponse<String> answer = HttpClient.newHttpClient().send(sent, HttpResponse.BodyHandlers.ofString());
      equal(answer.statusCode(), 200);
      equal(((Number) Json.map(Json.parse(answer.body())).get("value")).doubleValue(), 0.0);
    }
  }

  private void half() {
    byte[] halves = {0, 0x3c, 0, (byte) 0xc0, 1, 0, 0, 0x7c, 0x55, 0x35};
    double[] expected = {1, -2, Math.scalb(1.0, -24), Double.POSITIVE_INFINITY, 0.333251953125};
    equal(Tensor.packed("float16", new int[] {5}, halves).doubles(), expected);
    byte[] brains = {(byte) 0x80, 0x3f, 0x40, (byte) 0xc0};
    equal(Tensor.packed("bfloat16", new int[] {2}, brains).doubles(), new double[] {1, -3});
    equal(Tensor.of(new boolean[] {true, false}).doubles(), new double[] {1, 0});
    equal(Tensor.of(new int[] {7, -1}, new int[] {1, 2}).doubles(), new double[] {7, -1});
  }

  private void misfit() {
    for (Check check : List.<Check>of(() -> Tensor.of(new float[3], 2, 2), () -> Tensor.packed("float3", new int[0], new byte[1]))) {
      equal(caught(check) instanceof IllegalArgumentException, true);
    }
    equal(caught(() -> lossd.evaluate("mse", mse(Double.NaN))) instanceof IllegalArgumentException, true);
  }

  private void json() {
    String text = "{\"a\":[1,-2.5,true,null,[],{}],\"é\\u0000\\\"\\\\/\":\"\\u00fc\\n🎯\"}";
    Object read = Json.parse(" " + text + "\n");
    equal(Json.parse(Json.write(read)), read);
    equal(Json.map(read).get("é\0\"\\/"), "ü\n🎯");
    for (String broken : List.of("", "[1", "{\"a\" 1}", "[1,]x", "nul", "1 2")) {
      equal(caught(() -> Json.parse(broken)) instanceof IllegalArgumentException, true);
    }
  }
}
