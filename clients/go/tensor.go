package lossd

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
)

// Element is a Go type for the elements of a tensor.
type Element interface {
	bool | uint8 | int8 | int16 | int32 | int64 | float32 | float64
}

// Tensor is a shape and flat numbers, packed row by row, little-endian.
type Tensor struct {
	// DType is bool, uint8, int8, int16, int32, int64, float16, bfloat16, float32 or float64.
	DType string `json:"dtype"`
	Shape []int  `json:"shape"`
	Data  []byte `json:"data"`
	// bare: a number in JSON, whose dtype is in the rest of the answer
	bare bool
}

// Of packs numbers into a tensor of a shape, by default a vector. It panics if they do not fit.
func Of[T Element](numbers []T, shape ...int) Tensor {
	if len(shape) == 0 {
		shape = []int{len(numbers)}
	}
	size := 1
	for _, length := range shape {
		size *= length
	}
	if size != len(numbers) {
		panic(fmt.Sprintf("lossd: expected %d numbers for %v; got %d", size, shape, len(numbers)))
	}
	return pack(numbers, shape)
}

// Scalar packs one number into a tensor of shape [].
func Scalar[T Element](number T) Tensor {
	return pack([]T{number}, []int{})
}

func pack[T Element](numbers []T, shape []int) Tensor {
	data, err := binary.Append([]byte{}, binary.LittleEndian, numbers)
	if err != nil {
		panic(err)
	}
	var zero T
	return Tensor{DType: fmt.Sprintf("%T", zero), Shape: shape, Data: data}
}

// Values unpacks the elements of a tensor of this dtype.
func Values[T Element](tensor Tensor) ([]T, error) {
	var zero T
	if dtype := fmt.Sprintf("%T", zero); dtype != tensor.DType {
		return nil, fmt.Errorf("lossd: expected a tensor of %s; got %s", dtype, tensor.DType)
	}
	numbers := make([]T, len(tensor.Data)/binary.Size(zero))
	_, err := binary.Decode(tensor.Data, binary.LittleEndian, numbers)
	return numbers, err
}

// Float64s returns the elements as float64, whatever their dtype.
func (tensor Tensor) Float64s() []float64 {
	switch tensor.DType {
	case "bool", "uint8":
		return widened(tensor.Data, func(number uint8) float64 { return float64(number) })
	case "int8":
		return widened(tensor.Data, func(number int8) float64 { return float64(number) })
	case "int16":
		return widened(tensor.Data, func(number int16) float64 { return float64(number) })
	case "int32":
		return widened(tensor.Data, func(number int32) float64 { return float64(number) })
	case "int64":
		return widened(tensor.Data, func(number int64) float64 { return float64(number) })
	case "float16":
		return widened(tensor.Data, fromFloat16)
	case "bfloat16":
		return widened(tensor.Data, func(bits uint16) float64 {
			return float64(math.Float32frombits(uint32(bits) << 16))
		})
	case "float32":
		return widened(tensor.Data, func(number float32) float64 { return float64(number) })
	}
	return widened(tensor.Data, func(number float64) float64 { return number })
}

// Item returns the first element, the only one of a reduced value.
func (tensor Tensor) Item() float64 {
	return tensor.Float64s()[0]
}

func widened[T any](data []byte, widen func(T) float64) []float64 {
	var zero T
	numbers := make([]T, len(data)/binary.Size(zero))
	_, _ = binary.Decode(data, binary.LittleEndian, numbers)
	wide := make([]float64, len(numbers))
	for i, number := range numbers {
		wide[i] = widen(number)
	}
	return wide
}

func fromFloat16(bits uint16) float64 {
	exponent, fraction := int(bits>>10&31), float64(bits&1023)
	size := math.Ldexp(1+fraction/1024, exponent-15)
	switch {
	case exponent == 31 && fraction != 0:
		size = math.NaN()
	case exponent == 31:
		size = math.Inf(1)
	case exponent == 0:
		size = math.Ldexp(fraction, -24)
	}
	if bits>>15 == 1 {
		return -size
	}
	return size
}

// UnmarshalJSON reads a packed tensor, or a bare number such as a reduced value; null is NaN.
func (tensor *Tensor) UnmarshalJSON(text []byte) error {
	if bytes.HasPrefix(text, []byte("{")) {
		type packed Tensor
		return json.Unmarshal(text, (*packed)(tensor))
	}
	number := math.NaN()
	if string(text) != "null" {
		if err := json.Unmarshal(text, &number); err != nil {
			return err
		}
	}
	*tensor = Scalar(number)
	tensor.bare = true
	return nil
}

// in gives a bare number the dtype of its answer; half types are computed in float32.
func (tensor Tensor) in(dtype string) Tensor {
	if !tensor.bare || dtype == "float64" {
		return tensor
	}
	return Scalar(float32(tensor.Item()))
}
