// Evaluate a classifier of digits with four workers, exactly once.
//
//	go run evaluate.go -lossd http://localhost:8000 -name digits.v1 -data ../data/digits.csv
//
// Every worker sends the same spec and takes parts until none is left. Kill the program at any time and start it again:
// what was acknowledged stays, what is sent again counts once, and the results are the same to the bit. With
// -worker and -workers each of several machines takes its share, as in job.yaml.
package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"math"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

const (
	classes  = 10
	rowsEach = 100
	workers  = 4
)

type part struct {
	ID     []int       `json:"id"`
	Scores [][]float64 `json:"scores"`
	Label  []int       `json:"label"`
	Half   []string    `json:"half"`
}

func main() {
	lossd := flag.String("lossd", "http://localhost:8000", "address of lossd")
	name := flag.String("name", "digits.v1", "name of the evaluation")
	data := flag.String("data", "../data/digits.csv", "digits, a row of pixels and the label each")
	worker := flag.Int("worker", 0, "number of this machine, from 0")
	machines := flag.Int("workers", 1, "number of machines")
	flag.Parse()

	images, labels := read(*data)
	base := *lossd + "/v1/evaluations/" + *name
	spec := map[string]any{
		"task": "multiclass", "num_classes": classes, "expect": len(images),
		"columns": map[string]any{"predictions": "scores", "targets": "label", "id": "id", "slices": []string{"half"}},
		"metrics": []any{"accuracy", "f1", "confusion_matrix", map[string]string{"loss": "cross_entropy"}},
	}
	send("PUT", base, spec)

	centres := train(images, labels)
	parts := make(chan int)
	var done sync.WaitGroup
	for i := 0; i < workers; i++ {
		done.Add(1)
		go func() {
			defer done.Done()
			for number := range parts {
				answer := send("PUT", fmt.Sprintf("%s/parts/%04d", base, number), predict(number, centres, images, labels))
				log.Printf("part %d: %s", number, answer)
			}
		}()
	}
	for number := *worker; number*rowsEach < len(images); number += *machines {
		parts <- number
	}
	close(parts)
	done.Wait()
	fmt.Println(string(send("GET", base+"?slices=half&interval=0.95&metrics=accuracy,f1,cross_entropy", nil)))
}

// send repeats a request until it is answered: nothing that lossd stores can count twice.
func send(method, url string, body any) []byte {
	encoded, err := json.Marshal(body)
	if err != nil {
		log.Fatal(err)
	}
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		request, err := http.NewRequest(method, url, bytes.NewReader(encoded))
		if err != nil {
			log.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		if key := os.Getenv("LOSSD_KEY"); key != "" {
			request.Header.Set("X-API-Key", key)
		}
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			text, failed := io.ReadAll(response.Body)
			response.Body.Close()
			if failed == nil && response.StatusCode < 300 {
				return text
			}
			if failed == nil && response.StatusCode < 500 && response.StatusCode != http.StatusTooManyRequests {
				log.Fatalf("%s %s: %s", method, url, text)
			}
			if seconds, parsed := strconv.Atoi(response.Header.Get("Retry-After")); parsed == nil {
				wait = time.Duration(seconds) * time.Second
			}
		}
		time.Sleep(wait)
	}
}

// predict scores the digits of a part: the nearer the centre of a class, the higher its score.
func predict(number int, centres [][]float64, images [][]float64, labels []int) part {
	var found part
	for row := number * rowsEach; row < min((number+1)*rowsEach, len(images)); row++ {
		scores := make([]float64, classes)
		for class, centre := range centres {
			for pixel, value := range images[row] {
				scores[class] -= math.Pow(value-centre[pixel], 2) / 64
			}
		}
		found.ID = append(found.ID, row)
		found.Scores = append(found.Scores, scores)
		found.Label = append(found.Label, labels[row])
		found.Half = append(found.Half, []string{"first", "second"}[2*row/len(images)])
	}
	return found
}

// train returns the mean image of each class.
func train(images [][]float64, labels []int) [][]float64 {
	centres, counts := make([][]float64, classes), make([]float64, classes)
	for row, label := range labels {
		if centres[label] == nil {
			centres[label] = make([]float64, len(images[row]))
		}
		counts[label]++
		for pixel, value := range images[row] {
			centres[label][pixel] += (value - centres[label][pixel]) / counts[label]
		}
	}
	return centres
}

// read returns the pixels and the labels of the digits.
func read(path string) ([][]float64, []int) {
	file, err := os.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil {
		log.Fatal(err)
	}
	var images [][]float64
	var labels []int
	for _, row := range rows {
		numbers := make([]float64, len(row))
		for place, text := range row {
			if numbers[place], err = strconv.ParseFloat(text, 64); err != nil {
				break
			}
		}
		if err != nil {
			continue // the header
		}
		images = append(images, numbers[:len(row)-1])
		labels = append(labels, int(numbers[len(row)-1]))
	}
	return images, labels
}
