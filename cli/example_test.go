package cli_test

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/quorate/quorate/cli"
)

// The whole command line is one function: arguments, environment and three streams go in, an exit code comes out.
func ExampleMain() {
	var errs strings.Builder
	code := cli.Main(context.Background(), []string{"memebrs", "workers"}, nil, strings.NewReader(""), os.Stdout, &errs)
	fmt.Println(code, errs.String())
	// Output:
	// 2 quorate: unknown command "memebrs": did you mean "members"?
}
