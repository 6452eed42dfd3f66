// Evaluate a classifier of digits with four workers, in plain Go, so that each digit counts once whatever fails.
//
//	go run examples/evaluation/evaluate.go -name digits.v1
//
// The workers share nothing. A part is named after its shard, so a retry, a program that was killed and started
// again, or another pod sends the same part under the same key, which the service counts once.
package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	pixels   = 64
	whitest  = 16
	classes  = 10
	held     = 360 // the last digits of the file are evaluated, the others are for training
	shardLen = 10
	shards   = held / shardLen
	// Distances are in sixteenths of a grey value, and divided by a power of two: a part has the same bits on
	// every machine.
	unit        = 16
	temperature = 1 << 16
)

var (
	server   = flag.String("server", "http://127.0.0.1:8000", "base `URL` of lossd")
	name     = flag.String("name", "digits.v1", "`name` of the evaluation")
	data     = flag.String("data", "examples/data/digits.csv", "`file` of digits")
	train    = flag.Int("train", 1000, "`number` of digits to train with, at most 1437")
	workers  = flag.Int("workers", 4, "`number` of workers")
	index    = flag.String("index", os.Getenv("JOB_COMPLETION_INDEX"), "run the worker of this `index` alone, from 0")
	pause    = flag.Duration("pause", 0, "time between two parts of a worker, as of a slower model")
	patience = flag.Duration("patience", 10*time.Minute, "time to retry a request")
	key      = os.Getenv("LOSSD_API_KEY")
	client   = http.Client{Timeout: 30 * time.Second}
)

type digit struct {
	grey  [pixels]int
	label int
}

// part is what a worker sends: the columns of a shard.
type part struct {
	ID     []string           `json:"id"`
	Logits [][classes]float64 `json:"logits"`
	Label  []int              `json:"label"`
}

func main() {
	flag.Parse()
	if err := evaluate(); err != nil {
		fmt.Fprintln(os.Stderr, "evaluate:", err)
		os.Exit(1)
	}
}

// evaluate creates the evaluation, sends the shards of all workers or of one, and prints the result.
func evaluate() error {
	digits, err := read(*data)
	if err != nil {
		return err
	}
	testing := len(digits) - held
	if *train < classes || *train > testing {
		return fmt.Errorf("-train: expected %d to %d; got %d", classes, testing, *train)
	}
	if *workers < 1 {
		return fmt.Errorf("-workers: expected 1 or more; got %d", *workers)
	}
	first, last := 0, *workers
	if *index != "" {
		if first, err = strconv.Atoi(*index); err != nil || first < 0 || first >= *workers {
			return fmt.Errorf("-index: expected 0 to %d; got %q", *workers-1, *index)
		}
		last = first + 1
	}
	path := "/v1/evaluations/" + url.PathEscape(*name)
	if err := call("PUT", path, spec(), nil); err != nil {
		return err
	}
	means := fit(digits[:*train])
	ended := make(chan error)
	for worker := first; worker < last; worker++ {
		go func(worker int) { ended <- work(path, worker, means, digits[testing:]) }(worker)
	}
	for worker := first; worker < last; worker++ {
		if failed := <-ended; failed != nil {
			err = failed
		}
	}
	if err != nil {
		return err
	}
	return report(path)
}

func spec() any {
	return map[string]any{
		"task": "multiclass", "num_classes": classes, "expect": held,
		"columns": map[string]any{"predictions": "logits", "targets": "label", "id": "id"},
		"metrics": []any{"accuracy", "f1", map[string]any{"loss": "cross_entropy"}},
	}
}

// work sends every shard of one worker. It sends all of them after a restart too: only the service knows
// which ones it has.
func work(path string, worker int, means [classes][pixels]int, digits []digit) error {
	for shard := worker; shard < shards; shard += *workers {
		var sent part
		for place := shard * shardLen; place < (shard+1)*shardLen; place++ {
			sent.ID = append(sent.ID, fmt.Sprintf("digit-%03d", place))
			sent.Logits = append(sent.Logits, logits(means, digits[place]))
			sent.Label = append(sent.Label, digits[place].label)
		}
		var stored struct{ New, Seen int }
		if err := call("PUT", fmt.Sprintf("%s/parts/shard-%02d", path, shard), sent, &stored); err != nil {
			return fmt.Errorf("shard %d: %w", shard, err)
		}
		fmt.Printf("worker %d, shard %2d: %2d new rows, %2d seen before\n", worker, shard, stored.New, stored.Seen)
		time.Sleep(*pause)
	}
	return nil
}

// report prints the result, or how far it is: the last worker to end finds it complete.
func report(path string) error {
	var found struct {
		Rows     int
		Complete bool
		Results  struct {
			Accuracy struct{ Value float64 }
			F1       struct {
				Value    struct{ Macro float64 }
				Interval struct{ Macro [2]float64 }
			}
			CrossEntropy struct{ Value float64 } `json:"cross_entropy"`
		}
	}
	if err := call("GET", path+"?interval=0.95", nil, &found); err != nil {
		return err
	}
	if !found.Complete {
		fmt.Printf("\n%d of %d rows are there; other workers send the rest\n", found.Rows, held)
		return nil
	}
	of := found.Results
	// every digit of the numbers, so that equal text is equal bits
	fmt.Printf("\nrows          %d\naccuracy      %v\n", found.Rows, of.Accuracy.Value)
	fmt.Printf("f1 macro      %v, from %v to %v\n", of.F1.Value.Macro, of.F1.Interval.Macro[0], of.F1.Interval.Macro[1])
	fmt.Printf("cross_entropy %v\n", of.CrossEntropy.Value)
	return nil
}

// call sends a request until it is answered, for as long as patience lasts. A request may arrive twice, which
// PUT and GET allow.
func call(method, path string, body, found any) error {
	content, err := json.Marshal(body)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(*patience)
	for wait := 100 * time.Millisecond; ; wait *= 2 {
		if wait > 5*time.Second {
			wait = 5 * time.Second
		}
		again, after, err := attempt(method, path, content, found)
		// half of it as good as random: workers that failed together come back apart
		if pause := wait/2 + time.Duration(time.Now().UnixNano())%(wait/2); pause > after {
			after = pause
		}
		if !again || time.Now().Add(after).After(deadline) {
			return err
		}
		fmt.Fprintf(os.Stderr, "%v; again in %v\n", err, after.Round(time.Millisecond))
		time.Sleep(after)
	}
}

// attempt sends a request once. It returns whether to try again, and how long to wait at least.
func attempt(method, path string, content []byte, found any) (again bool, after time.Duration, err error) {
	request, err := http.NewRequest(method, strings.TrimRight(*server, "/")+path, bytes.NewReader(content))
	if err != nil {
		return false, 0, err
	}
	request.Header.Set("Content-Type", "application/json")
	if key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := client.Do(request)
	if err != nil {
		return true, 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return true, 0, err
	}
	switch response.StatusCode {
	case http.StatusOK, http.StatusCreated:
		if found == nil {
			return false, 0, nil
		}
		return false, 0, json.Unmarshal(text, found)
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
		after, again = time.Duration(seconds)*time.Second, true
	}
	return again, after, fmt.Errorf("%s: %s", response.Status, text)
}

// fit returns the mean of each class: the whole model.
func fit(digits []digit) (means [classes][pixels]int) {
	var counts [classes]int
	for _, one := range digits {
		counts[one.label]++
		for i, grey := range one.grey {
			means[one.label][i] += unit * grey
		}
	}
	for class, count := range counts {
		for i := range means[class] {
			if count > 0 {
				means[class][i] /= count
			}
		}
	}
	return means
}

// logits returns how near a digit is to each mean.
func logits(means [classes][pixels]int, one digit) (found [classes]float64) {
	for class, mean := range means {
		squares := 0
		for i, grey := range one.grey {
			squares += (unit*grey - mean[i]) * (unit*grey - mean[i])
		}
		found[class] = -float64(squares) / temperature
	}
	return found
}

// read returns the digits of a file with 64 grey values and a label on each line.
func read(path string) ([]digit, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := csv.NewReader(file)
	lines.FieldsPerRecord = pixels + 1
	records, err := lines.ReadAll()
	if err != nil {
		return nil, err
	}
	digits := make([]digit, len(records))
	for n, record := range records {
		for i, text := range record {
			into, most := &digits[n].label, classes-1
			if i < pixels {
				into, most = &digits[n].grey[i], whitest
			}
			if *into, err = strconv.Atoi(text); err != nil || *into < 0 || *into > most {
				return nil, fmt.Errorf("%s, line %d: expected 0 to %d; got %q", path, n+1, most, text)
			}
		}
	}
	return digits, nil
}
